"""Types of command-line options that several jobs share."""

import argparse

LARGEST_SEED = 2**32 - 1


def seed(text: str) -> int:
    """A seed that NumPy and PyTorch both take: 0 to 2³² − 1."""
    if not (text.isascii() and text.isdecimal()) or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a seed; give a number from 0 to {LARGEST_SEED}"
        )
    return int(text)
