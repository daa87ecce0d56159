"""UM-Bridge's own client against a running service: python with_umbridge.py URL"""

import sys

import numpy as np
import umbridge

url = sys.argv[1] + "/umbridge"
assert "quadratic" in umbridge.supported_models(url)
matrix = np.array([[[2, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 1], [0, 1, 4]]], float)
x = np.array([1.0, 2.0, 3.0])
jacobian = matrix @ x

model = umbridge.HTTPModel(url, "quadratic")
assert model.get_input_sizes() == [3] and model.get_output_sizes() == [2]
assert all(
    (
        model.supports_evaluate(),
        model.supports_gradient(),
        model.supports_apply_jacobian(),
        model.supports_apply_hessian(),
    )
)
assert model([x.tolist()]) == [(0.5 * jacobian @ x).tolist()]
sens, vec = [2.0, -1.0], [1.0, 0.0, -2.0]
assert model.gradient(0, 0, [x.tolist()], sens) == (np.array(sens) @ jacobian).tolist()
assert model.apply_jacobian(0, 0, [x.tolist()], vec) == (jacobian @ vec).tolist()
hessian = np.einsum("j,jil,l->i", sens, matrix, vec)
assert model.apply_hessian(0, 0, 0, [x.tolist()], sens, vec) == hessian.tolist()
# Many rows at once, by the configuration alone.
rows = np.arange(300.0).reshape(100, 3)
found = np.reshape(model([rows.ravel().tolist()], {"n": 100}), (100, 2))
assert np.allclose(found, 0.5 * np.einsum("ni,jil,nl->nj", rows, matrix, rows), rtol=1e-12)

curve = umbridge.HTTPModel(url, "curve-mlp")  # x³ − 2x
assert curve([[2.0]]) == [[4.0]] and curve.gradient(0, 0, [[2.0]], [1.0]) == [10.0]

for name, given, error in (
    ("quadratic", [[1.0, 2.0]], "InvalidInput"),
    ("mixed", [[1.0, 0.0], [1.0], [5.0, 6.0]], "InvalidOutput"),
):
    try:
        umbridge.HTTPModel(url, name)(given)
    except Exception as raised:
        assert f"type {error}" in str(raised), raised
    else:
        raise AssertionError(name)
print("umbridge: every call")
