"""Marks a student's own numbers for ``/w10-gradient``, step by step.

Each number is compared with the graph's. A wrong one may still follow from the numbers before it,
which are wrong as well: then the mistake isn't there. Otherwise the usual slips are tried, and one
that gives the student's number is named.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 0.005  # of the size of the right number: three digits, rounded on the way
SMALLEST = 1e-9  # a number that should be zero may be off by as much
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
# In the order of the calculation, as a person writes them.
NAMES = {
    "preactivation": "z",
    "activation": "a",
    "prediction": "ŷ",
    "loss": "loss",
    "prediction_gradient": "∂loss/∂ŷ",
    "activation_gradient": "∂loss/∂a",
    "preactivation_gradient": "∂loss/∂z",
    "gradient": "∂loss/∂w10",
}
SCALES = (
    ("the factor 2 of the square's derivative was forgotten", 0.5),
    ("the sign is wrong: it is ŷ − y, not y − ŷ", -1.0),
)

Slips = Iterator[tuple[Sequence[str], Any]]


# The largest numbers that are accepted overflow to infinity: then no slip is recognised.
@np.errstate(over="ignore", invalid="ignore")
def mark(
    given: dict[str, Any],
    found: dict[str, Any],
    flipped: dict[str, Any],
    sample: dict[str, Any],
    *,
    sequential: bool,
) -> dict[str, Any]:
    """What is right and wrong in ``given``, by the names of ``NAMES``; 2×2 ones may have holes.

    ``found``: the graph's outputs for ``sample`` (x, kernel, weights, label). ``flipped``: those
    for the kernel turned by 180°, which is what flipping it gives.
    """
    right = {name: np.array(found[name], np.float64) for name in NAMES if name != "gradient"}
    kernel, weights = np.array(found["kernel_gradient"]), np.array(found["weights_gradient"])
    right["gradient"] = weights[0] if sequential else kernel[1, 0]
    theirs = {
        name: np.array(given[name], np.float64)  # None becomes NaN
        for name in NAMES
        if given.get(name) is not None
    }
    slips = _Slips(right, found, flipped, sample, sequential)
    steps = [_step(name, theirs, right, slips) for name in theirs]
    wrong = [step for step in steps if not step["correct"]]
    # The first step that is wrong by itself; where each follows from others, the first of all.
    source = next((step for step in wrong if not step["follows"]), wrong[0] if wrong else None)
    if source is None:
        message = "Right." if "gradient" in theirs else "Right so far; ∂loss/∂w10 is still to come."
    else:
        message = f"It went wrong at {NAMES[source['step']]}. {source['message']}"
    return {
        "correct": source is None,
        "went_wrong_at": None if source is None else source["step"],
        "message": message,
        "tolerance": TOLERANCE,
        "steps": steps,
    }


def _step(
    name: str, theirs: dict[str, Array], right: dict[str, Array], slips: "_Slips"
) -> dict[str, Any]:
    mine, truth = theirs[name], right[name]
    known = ~np.isnan(mine)
    good = _near(mine, truth)
    correct = bool(good[known].all())
    wrong = [list(map(int, index)) for index in np.argwhere(known & ~good)]
    follows, named = False, []
    if correct:
        message = "Right."
    else:
        own = slips.following(name, theirs)
        follows = own is not None and bool(_near(mine, own)[known].all())
        where = ", ".join(f"{NAMES[name]}{i}{j}" for i, j in wrong) if wrong != [[]] else ""
        if follows:
            message = "Not the right number, but it follows from your numbers before it."
        else:
            named = slips.name(name, mine, own if own is not None else truth)
            reason = "; ".join(named) if named else "none of the usual slips gives this"
            message = f"Wrong{f' in {where}' if where else ''}: {reason}."
    return {
        "step": name,
        "correct": correct,
        "follows": follows,
        "wrong": [index for index in wrong if index],
        "slips": named,
        "message": message,
    }


def _near(given: Array, expected: Array) -> NDArray[np.bool_]:
    """Within the tolerance, element by element; False where nothing is given."""
    return np.asarray(
        np.abs(given - expected) <= np.maximum(TOLERANCE * np.abs(expected), SMALLEST)
    )


class _Slips:
    """What the usual mistakes give, for one sample."""

    def __init__(
        self,
        right: dict[str, Array],
        found: dict[str, Any],
        flipped: dict[str, Any],
        sample: dict[str, Any],
        sequential: bool,
    ) -> None:
        self.right = right
        self.kernel = np.array(found["kernel_gradient"])
        self.first_weight = float(np.array(found["weights_gradient"])[0])
        self.flipped = {name: np.array(value) for name, value in flipped.items()}
        self.x = np.array(sample["x"], np.float64)
        self.weights = np.array(sample["weights"], np.float64).reshape(2, 2)
        self.label = float(sample["label"])
        self.sequential = sequential

    def following(self, name: str, theirs: dict[str, Array]) -> Array | None:
        """The step calculated from the student's own numbers before it; None if they gave none.

        Numbers that they left out are taken as they should be.
        """
        own = {
            key: np.where(np.isnan(theirs[key]), truth, theirs[key]) if key in theirs else truth
            for key, truth in self.right.items()
        }
        a, dy = own["activation"], own["prediction_gradient"]
        made: dict[str, tuple[tuple[str, ...], Any]] = {
            "activation": (("preactivation",), _sigmoid(own["preactivation"])),
            "prediction": (("activation",), np.sum(self.weights * a)),
            "loss": (("prediction",), (own["prediction"] - self.label) ** 2),
            "prediction_gradient": (("prediction",), 2 * (own["prediction"] - self.label)),
            "activation_gradient": (("prediction_gradient",), dy * self.weights),
            "preactivation_gradient": (
                ("activation_gradient", "activation"),
                own["activation_gradient"] * a * (1 - a),
            ),
            "gradient": (
                ("prediction_gradient", "activation")
                if self.sequential
                else ("preactivation_gradient",),
                dy * a[0, 0]
                if self.sequential
                else np.sum(own["preactivation_gradient"] * self.x[1:3, 0:2]),
            ),
        }
        sources, value = made.get(name, ((), None))
        return np.asarray(value) if any(source in theirs for source in sources) else None

    def name(self, step: str, mine: Array, base: Array) -> list[str]:
        """The slips that give ``mine``: the fewest that do, the nearest of those.

        ``base`` is what the step should be, given the student's numbers before it.
        """
        known = ~np.isnan(mine)
        matches = []
        for names, value in self._tried(step, base):
            tried = np.broadcast_to(np.asarray(value, np.float64), mine.shape)
            if bool(_near(mine, tried)[known].all()):
                away = float(np.abs(mine - tried)[known].max())
                matches.append((len(names), away, list(names)))
        return min(matches)[2] if matches else []

    def _tried(self, step: str, base: Array) -> Slips:
        """Each step's own slips; backwards from the loss, with a wrong scale as well."""
        for names, value in self._of(step, base):
            yield names, value
            if step.endswith("gradient"):
                for scale, factor in SCALES:
                    yield [*names, scale], factor * value
                yield [*names, *(scale for scale, _ in SCALES)], -0.5 * value

    def _of(self, step: str, base: Array) -> Slips:
        if step.endswith("gradient"):
            yield [], base
        a = self.right["activation"]
        if step == "preactivation":
            yield ["the kernel was flipped"], self.flipped["preactivation"]
            yield ["rows and columns are exchanged"], base.T
        elif step == "activation":
            yield ["the sigmoid was forgotten"], self.right["preactivation"]
            yield ["the kernel was flipped"], self.flipped["activation"]
            yield ["this is σ′, not σ"], a * (1 - a)
            yield ["the sign in the exponent is wrong: σ(z) = 1 / (1 + e^(−z))"], 1 - base
        elif step == "prediction":
            yield ["a sigmoid too many: ŷ has none of its own"], _sigmoid(base)
            yield ["the sigmoid was forgotten"], np.sum(self.weights * self.right["preactivation"])
            yield ["the kernel was flipped"], self.flipped["prediction"]
        elif step == "loss":
            yield ["a factor ½ was put in: the loss is (ŷ − y)²"], base / 2
            yield ["the square was forgotten"], self.right["prediction"] - self.label
            yield ["the kernel was flipped"], self.flipped["loss"]
        elif step == "activation_gradient":
            yield ["the weights v were forgotten"], self.right["prediction_gradient"]
        elif step == "preactivation_gradient":
            yield ["σ′ was forgotten"], self.right["activation_gradient"]
            yield (
                ["a σ was taken for σ′ = a (1 − a)"],
                self.right["activation_gradient"] * a,
            )
        elif step == "gradient":
            yield from self._of_gradient()

    def _of_gradient(self) -> Slips:
        dy, a = self.right["prediction_gradient"], self.right["activation"]
        dz, da = self.right["preactivation_gradient"], self.right["activation_gradient"]
        if self.sequential:
            yield ["this is the kernel's row 1, column 0: the other reading"], self.kernel[1, 0]
            yield ["the sigmoid was forgotten"], dy * self.right["preactivation"][0, 0]
            yield ["a σ′ too many: v0 comes after the sigmoid"], dy * a[0, 0] * (1 - a[0, 0])
            yield ["the kernel was flipped"], self.flipped["weights_gradient"][0]
            return
        seen = self.x[1:3, 0:2]  # what kernel row 1, column 0 meets
        yield ["this is v0, the tenth weight: the other reading"], self.first_weight
        yield ["σ′ was forgotten"], np.sum(da * seen)
        yield ["a σ was taken for σ′ = a (1 − a)"], np.sum(da * a * seen)
        yield ["the weights v were forgotten"], np.sum(dy * a * (1 - a) * seen)
        for i, j in CELLS:
            yield (
                [f"only one position, z{i}{j}: the kernel meets the input at four, which add up"],
                dz[i, j] * seen[i, j],
            )
        # The kernel turned: its row 1, column 0 stands where column 2 stood.
        yield ["the kernel was flipped"], self.flipped["kernel_gradient"][1, 2]
        yield ["the kernel was flipped on the way back alone"], self.kernel[1, 2]
        yield ["row and column are exchanged: this is ∂loss/∂k01"], self.kernel[0, 1]


def _sigmoid(z: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
    return result
