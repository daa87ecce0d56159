"""The stand-in for the homework's HW1-1.csv, which was not supplied: 20 noisy points, truth known.

    y = 1.5·sin(1.6·x) + 0.3·x + ε,   ε normal, mean 0, standard deviation 0.1

at 20 places from −1 to 4, evenly spaced and then moved a little. −0.5, 0.1 and 3.0, where the
homework asks for the derivative, lie well inside. ``python -m training.data.stand_in`` prints the
file; a test compares that with the committed one.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PATH = Path(__file__).with_name("HW1-1.csv")
NOISE = 0.1
SEED = 20
ROWS = 20

Array = NDArray[np.float64]


def truth(x: Array) -> Array:
    """The function without the noise."""
    return 1.5 * np.sin(1.6 * x) + 0.3 * x


def truth_derivative(x: Array) -> Array:
    """Its first derivative, by hand: 2.4·cos(1.6·x) + 0.3."""
    return 2.4 * np.cos(1.6 * x) + 0.3


def csv_text() -> str:
    """The content of HW1-1.csv: a header, then x with 3 decimals and y with 4."""
    generator = np.random.default_rng(SEED)
    x = np.linspace(-1, 4, ROWS)
    x[1:-1] += generator.uniform(-0.08, 0.08, ROWS - 2)
    x = x.round(3)
    y = truth(x) + generator.normal(0, NOISE, ROWS)
    return "x,y\n" + "".join(f"{a:.3f},{b:.4f}\n" for a, b in zip(x, y, strict=True))


if __name__ == "__main__":
    sys.stdout.write(csv_text())
