"""tesseract-core's client against a running service: python with_tesseract.py URL"""

import sys

import numpy as np
from tesseract_core import Tesseract

matrix = np.array([[[2, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 1], [0, 1, 4]]], float)
model = Tesseract.from_url(sys.argv[1] + "/tesseract/quadratic")
assert model.health() == {"status": "ok"}
wanted = {"apply", "jacobian", "jacobian_vector_product", "vector_jacobian_product"}
assert wanted | {"abstract_eval"} <= set(model.available_endpoints)
for x in (np.array([1.0, 2.0, 3.0]), np.arange(6.0).reshape(2, 3)):
    each = np.einsum("jil,...l->...ji", matrix, x)
    y = 0.5 * np.einsum("...ji,...i->...j", each, x)
    assert np.array_equal(model.apply({"x": x})["y"], y)
    found = model.jacobian({"x": x}, ["x"], ["y"])["y"]["x"]
    assert found.shape == (*y.shape, *x.shape)
    assert x.ndim == 2 or np.array_equal(found, each)
    jvp = model.jacobian_vector_product({"x": x}, ["x"], ["y"], {"x": np.ones_like(x)})
    assert np.array_equal(jvp["y"], each.sum(-1))
    vjp = model.vector_jacobian_product({"x": x}, ["x"], ["y"], {"y": np.ones_like(y)})
    assert np.array_equal(vjp["x"], each.sum(-2))
    shapes = model.abstract_eval({"x": {"shape": x.shape, "dtype": "float64"}})
    assert shapes == {"y": {"shape": list(y.shape), "dtype": "float64"}}
try:
    model.apply({"x": np.ones(2)})
except Exception as error:
    assert "its shape should be" in str(error), error
else:
    raise AssertionError("a wrong shape")
print("tesseract-core: every call")
