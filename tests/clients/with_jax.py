"""JAX through tesseract-jax against a running service: python with_jax.py URL"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from tesseract_core import Tesseract
from tesseract_jax import apply_tesseract

jax.config.update("jax_enable_x64", True)
matrix = np.array([[[2, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 1], [0, 1, 4]]], float)
model = Tesseract.from_url(sys.argv[1] + "/tesseract/quadratic")


def loss(x):
    return jnp.sum(apply_tesseract(model, {"x": x}, vmap_method="broadcast_all")["y"] ** 2)


def own(x):
    return jnp.sum((0.5 * jnp.einsum("i,jil,l->j", x, matrix, x)) ** 2)


x = jnp.array([1.0, 2.0, 3.0])
assert np.allclose(loss(x), own(x), rtol=1e-12)
assert np.allclose(jax.grad(loss)(x), jax.grad(own)(x), rtol=1e-12)
assert np.allclose(jax.jit(jax.grad(loss))(x), jax.grad(own)(x), rtol=1e-12)
tangent = jnp.array([1.0, 0.0, -1.0])
assert np.allclose(jax.jvp(loss, (x,), (tangent,))[1], jax.jvp(own, (x,), (tangent,))[1])
rows = jnp.arange(12.0).reshape(4, 3)
assert np.allclose(jax.vmap(loss)(rows), jax.vmap(own)(rows), rtol=1e-12)
assert np.allclose(jax.vmap(jax.grad(loss))(rows), jax.vmap(jax.grad(own))(rows), rtol=1e-12)
print("tesseract-jax: grad, jvp, jit, vmap")
