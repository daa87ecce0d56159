"""PyMC's NUTS on a served function: python with_pymc.py URL"""

import subprocess
import sys
from pathlib import Path

example = Path(__file__).parents[2] / "examples" / "pymc_posterior.py"
done = subprocess.run(
    [sys.executable, str(example), sys.argv[1], "hill", "100"],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
)
assert done.returncode == 0, done.stderr
assert "100 draws in" in done.stdout
print("pymc:", done.stdout.strip().replace("\n", "; "))
