"""QMCPy's integration of a served function through UM-Bridge: python with_qmcpy.py URL"""

import sys

import numpy as np
import qmcpy
import umbridge

url = sys.argv[1] + "/umbridge"
# −½ Σ (x − 1)² over [0, 2]¹⁰: −10/6 on average.
hill = umbridge.HTTPModel(url, "hill")
cube = qmcpy.Uniform(qmcpy.DigitalNetB2(dimension=10, seed=7), lower_bound=0, upper_bound=2)
integrand = qmcpy.UMBridgeWrapper(cube, hill)
found, data = qmcpy.CubQMCNetG(integrand, abs_tol=5e-3, n_init=256).integrate()
assert abs(float(np.squeeze(found)) + 10 / 6) < 5e-3, found

# Two outputs, ½ xᵀ Q x for standard normal x: half the trace of each Q.
quadratic = umbridge.HTTPModel(url, "quadratic")
normal = qmcpy.Gaussian(qmcpy.DigitalNetB2(dimension=3, seed=7))
several = qmcpy.UMBridgeWrapper(normal, quadratic, {}, parallel=2)
means = several(256).mean(-1)
assert np.allclose(means, [1.0, 3.0], atol=0.1), means
print(f"qmcpy: {int(np.max(data.n_total))} points to within 5e-3; means of two outputs")
