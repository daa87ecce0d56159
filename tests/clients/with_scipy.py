"""Our own client and SciPy against a running service: python with_scipy.py URL"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import check_grad, minimize

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "clients"))
from gradserve_client import Function, GradserveError  # noqa: E402

url = sys.argv[1]
matrix = np.array([[[2, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 1], [0, 1, 4]]], float)
f, bowl = Function(url, "quadratic"), Function(url, "bowl")
for x in (np.array([1.0, 2.0, 3.0]), np.arange(6.0).reshape(2, 3)):
    each = np.einsum("jil,...l->...ji", matrix, x)
    assert np.array_equal(f(x), 0.5 * np.einsum("...ji,...i->...j", each, x))
    assert np.array_equal(f.jacobian(x), each)
    assert np.array_equal(f.jvp(x, np.ones_like(x)), each.sum(-1))
    several = np.stack([np.ones_like(x), x], -2)
    assert np.array_equal(f.jvp(x, several), np.einsum("...ji,...ki->...kj", each, several))
    assert np.array_equal(f.vjp(x, np.ones(each.shape[:-1])), each.sum(-2))
    ones = np.ones(each.shape[:-1])
    assert np.array_equal(f.hvp(x, x, ones), np.einsum("jil,...l->...i", matrix, x))
    assert np.array_equal(bowl.gradient(x), np.einsum("il,...l->...i", matrix[0], x))
    assert np.array_equal(bowl.hvp(x, x), np.einsum("il,...l->...i", matrix[0], x))
assert bowl(x[0]).shape == ()
assert check_grad(bowl, bowl.gradient, x[1]) < 1e-5
found = minimize(lambda x: bowl(x) + np.sum((x - 1) ** 4), np.zeros(3), method="Nelder-Mead")
assert found.success
assert Function(url, "curve-mlp").gradient(2.0) == 10.0
several = Function(url, "mixed")
found = several(x=[[1, 2], [3, 4]], m=[1, 2], theta=[5, 6])
assert found["y"].tolist() == [17, 78] and found["inverse"].shape == (2, 2)
pulled = several.vjp([1, 2], 1.0, m=1, theta=[5, 6], cotangent_inverse=[0, 0])
assert pulled["vjp_x"].tolist() == [5, 6] and pulled["vjp_theta"].tolist() == [1, 2]
for call in (lambda: Function(url, "nope"), lambda: f([1.0, 2.0]), lambda: bowl.jacobian(x)):
    try:
        call()
    except GradserveError as error:
        assert str(error)[:3] in {"404", "422"}, error
    else:
        raise AssertionError("an error was expected")
example = [sys.executable, str(ROOT / "examples" / "scipy_minimum.py"), url, "valley"]
done = subprocess.run(example, capture_output=True, text=True, check=True, timeout=60)
assert "BFGS: f = " in done.stdout, done.stdout
print("gradserve_client: every call;", done.stdout.strip().replace("\n", "; "))
