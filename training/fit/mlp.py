"""Fit a small network to points; leave-one-out error chooses its size and its weight decay.

Levenberg and Marquardt's method minimises mean squared error plus weight decay. Networks of this
size have so few parameters that its exact steps pay: each fit takes tens of them, where a
first-order method takes thousands. The same linearisation gives the leave-one-out error without
refitting, so that sizes and weight decays can be compared on every point.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.fit.fitted import Array, Fitted, mean_squared_error, r_squared
from training.networks.curve import CurveMLP, centre_and_half
from training.networks.deviation import MLPDeviation

HIDDEN = ((8,), (16,), (8, 8), (16, 16))  # units of each hidden layer
LARGER = ((48,),)  # tried where those explain too little, as for many periods of a sine
LARGER_GAIN = 30.0  # factor on the first layer's initial weights, for more bends
TOO_LITTLE = 0.95  # R², leaving one out
HEAVIEST, LIGHTEST = 1.0, 1e-10  # weight decay, in steps of √10
STEP = math.sqrt(10)
PATIENCE = 3  # steps without a better error end the search,
LEARNT = 0.5  # once that is below this share of the variance of y
RESTARTS = 4  # initial weights that are tried for each size
STEPS = 30  # of Levenberg and Marquardt for each weight decay, starting from the fit before
FINAL_STEPS = 200
MOST_POINTS = 2000  # on which sizes and weight decays are compared
MANY_POINTS = 10_000  # from which the last fit begins with the means of neighbours
REFINING_STEPS = 5  # from there, on every point
CHUNK = 4096  # rows of the Jacobian at a time


@dataclass(frozen=True)
class Candidate:
    """Hidden layers, a weight decay, and the median leave-one-out error of such fits."""

    hidden: tuple[int, ...]
    weight_decay: float
    held_out_mse: float


@dataclass(frozen=True)
class MLPFit(Fitted):
    """The trained network, the candidates and which of them it is.

    ``at_edge``: the error was still falling at the lightest weight decay, or at the heaviest.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    at_edge: bool
    seen: int  # points on which the candidates were compared


def fit_mlp(
    x: Array, y: Array, seed: int, report: Callable[[str], None] = lambda _: None
) -> MLPFit:
    """The network whose size and weight decay have the least leave-one-out error.

    From heavy weight decay to light, each fit starts where the last one ended; several first
    weights are tried, and the median of their errors counts. Everything random comes from ``seed``.
    """
    x_range, y_range = (float(x.min()), float(x.max())), (float(y.min()), float(y.max()))
    x_centre, x_half = centre_and_half(*x_range).tolist()
    y_centre, y_half = centre_and_half(*y_range).tolist()
    t, u = (x - x_centre) / x_half, (y - y_centre) / y_half
    order = np.argsort(t, kind="stable")
    seen = order[np.linspace(0, len(t) - 1, min(len(t), MOST_POINTS)).round().astype(int)]
    candidates: list[Candidate] = []
    found: dict[Candidate, Array] = {}

    def search(sizes: Sequence[tuple[int, ...]], gain: float = 1.0) -> None:
        for hidden in sizes:
            tried = list(_path(t[seen], u[seen], hidden, seed, gain))
            for candidate, parameters in tried:
                shown = Candidate(
                    hidden, candidate.weight_decay, candidate.held_out_mse * y_half**2
                )
                candidates.append(shown)
                found[shown] = parameters
            best = min((shown for shown, _ in tried), key=_error)
            report(
                f"  hidden layers {best.hidden}: least leave-one-out error "
                f"{best.held_out_mse * y_half**2:.4g}, at weight decay {best.weight_decay:.2g}"
            )

    search(HIDDEN)
    if r_squared(min(map(_error, candidates)), y) < TOO_LITTLE and len(seen) > sum(LARGER[0]):
        search(LARGER, LARGER_GAIN)
    chosen = min(candidates, key=_error)
    # The penalty weighs as much against more points.
    decay = chosen.weight_decay * len(seen) / len(t)
    problem = _Problem(t, u, chosen.hidden, decay)
    if len(t) < MANY_POINTS:
        parameters = problem.minimise(found[chosen], FINAL_STEPS)
    else:  # a step on every point takes long, and the means say nearly the same
        groups = np.array_split(order, MOST_POINTS)
        mean_t, mean_u = (np.array([v[group].mean() for group in groups]) for v in (t, u))
        means = _Problem(mean_t, mean_u, chosen.hidden, decay)
        parameters = means.minimise(found[chosen], FINAL_STEPS)
        parameters = problem.minimise(parameters, REFINING_STEPS)
    network = _network(x_range, y_range, chosen.hidden, parameters)
    root, freedom = problem.posterior(parameters)
    if problem.is_flat(parameters):
        root, freedom = None, None  # a constant that learnt nothing isn't sure of its slope
    return MLPFit(
        network=network,
        mse=mean_squared_error(network, x, y),
        deviation=None if root is None else MLPDeviation(network, torch.from_numpy(root)),
        degrees_of_freedom=freedom,
        chosen=chosen,
        candidates=tuple(candidates),
        at_edge=_is_at_edge(chosen, candidates, y),
        seen=len(seen),
    )


def _error(candidate: Candidate) -> float:
    return candidate.held_out_mse


def _is_at_edge(chosen: Candidate, candidates: Sequence[Candidate], y: Array) -> bool:
    """Whether the chosen weight decay is the first or last of its size, and it matters."""
    decays = [each.weight_decay for each in candidates if each.hidden == chosen.hidden]
    if 1 - r_squared(chosen.held_out_mse, y) < 1e-6:
        return False
    return chosen.weight_decay in (decays[0], decays[-1])


def _path(
    t: Array, u: Array, hidden: tuple[int, ...], seed: int, gain: float
) -> Iterator[tuple[Candidate, Array]]:
    """From heavy weight decay to light: the error of each, and the best of the restarts' weights.

    Ends when the error hasn't improved for a while.
    """
    generator = np.random.default_rng([seed, *hidden])
    first = [_first_weights(generator, hidden) for _ in range(RESTARTS)]
    for weights in first:
        weights[: 2 * hidden[0]] *= gain  # biases too: bends spread over the data
    starts = first
    decay, best, waited = HEAVIEST, math.inf, 0
    while decay >= LIGHTEST * 0.99 and waited < PATIENCE:
        problem = _Problem(t, u, hidden, decay)
        starts = [problem.minimise(start, STEPS) for start in starts]
        error = float(np.median([problem.leave_one_out(start) for start in starts]))
        yield Candidate(hidden, decay, error), min(starts, key=problem.objective)
        # Too heavy a weight decay makes all weights zero, from where no gradient leads away.
        flat = [problem.is_flat(start) for start in starts]
        starts = [
            again if collapsed else start
            for again, start, collapsed in zip(first, starts, flat, strict=True)
        ]
        waited = 0 if error < best or all(flat) or best > LEARNT * np.var(u) else waited + 1
        best = min(best, error)
        decay /= STEP


def _first_weights(generator: np.random.Generator, hidden: Sequence[int]) -> Array:
    """Uniform within ±1/√inputs, as PyTorch's linear layers have them."""
    sizes = (1, *hidden, 1)
    return np.concatenate(
        [
            generator.uniform(-(inputs**-0.5), inputs**-0.5, outputs * (inputs + 1))
            for inputs, outputs in itertools.pairwise(sizes)
        ]
    )


class _Problem:
    """Mean squared error plus weight decay of a network on points, in scaled variables.

    Parameters [P] lie layer by layer, weights [out, in] and then biases, as in the module. The
    weight decay is times the mean square of each layer's weights; biases are free.
    """

    def __init__(self, t: Array, u: Array, hidden: Sequence[int], weight_decay: float) -> None:
        self.t, self.u = t, u
        sizes = (1, *hidden, 1)
        self.shapes = list(zip(sizes[1:], sizes, strict=False))
        self.penalty = weight_decay * np.concatenate(
            [
                np.concatenate(
                    [np.full(outputs * inputs, 1 / (outputs * inputs)), np.zeros(outputs)]
                )
                for outputs, inputs in self.shapes
            ]
        )

    def objective(self, parameters: Array) -> float:
        error = np.concatenate([self._outputs(parameters, t)[0] for t in self._chunks(self.t)])
        return float(np.mean((error - self.u) ** 2) + self.penalty @ parameters**2)

    def is_flat(self, parameters: Array) -> bool:
        """Whether the network is nearly constant: it has under 1 % of the variance of y."""
        outputs = self._outputs(parameters, self.t[:CHUNK])[0]
        return float(np.var(outputs)) < 0.01 * float(np.var(self.u[:CHUNK]))

    def minimise(self, parameters: Array, steps: int) -> Array:
        """Levenberg and Marquardt: solve (H + μ)·step = −gradient, μ smaller after each success."""
        damping, cost = 1e-3, self.objective(parameters)
        curvature, gradient = self._derivatives(parameters)
        diagonal = np.arange(len(parameters))
        for _ in range(steps):
            damped = curvature.copy()
            damped[diagonal, diagonal] += damping
            candidate = parameters - np.linalg.solve(damped, gradient)
            reached = self.objective(candidate)
            if not reached < cost:
                damping *= 4
                if damping > 1e4:
                    break
                continue
            gain, parameters, cost = (cost - reached) / cost, candidate, reached
            if gain < 1e-7:
                break
            damping = max(damping / 4, 1e-15)
            curvature, gradient = self._derivatives(parameters)
        return parameters

    def leave_one_out(self, parameters: Array) -> float:
        """Mean squared error at each point of a fit to the others, to first order: e/(1 − h)."""
        curvature, _ = self._derivatives(parameters)
        curvature += 1e-12 * np.eye(len(parameters))
        squares = 0.0
        for t, u in zip(self._chunks(self.t), self._chunks(self.u), strict=True):
            output, jacobian = self._jacobian(parameters, t)
            solved = np.linalg.solve(curvature, jacobian.T).T
            leverage = np.einsum("np,np->n", jacobian, solved) / len(self.t)
            squares += float(np.sum(((output - u) / np.maximum(1 - leverage, 1e-6)) ** 2))
        return squares / len(self.t)

    def posterior(self, parameters: Array) -> tuple[Array | None, float | None]:
        """Laplace's approximation: a root of the parameters' covariance s²/N·H⁻¹ [P, P], and the
        degrees of freedom N − γ that s² is estimated with; None where fewer than one are left.

        γ, the effective number of parameters, is the trace of the hat matrix.
        """
        curvature, _ = self._derivatives(parameters)
        count = len(self.t)
        data = curvature - np.diag(self.penalty)
        curvature += 1e-10 * np.eye(len(parameters))
        effective = float(np.trace(np.linalg.solve(curvature, data)))
        freedom = count - effective
        if freedom < 1:
            return None, None
        squares = (self.objective(parameters) - float(self.penalty @ parameters**2)) * count
        factor = np.linalg.cholesky(curvature)
        root: Array = np.linalg.inv(factor).T * math.sqrt(squares / freedom / count)
        return root, freedom

    def _derivatives(self, parameters: Array) -> tuple[Array, Array]:
        """Gauss and Newton's curvature of the objective [P, P], and its gradient [P], halved."""
        curvature = np.diag(self.penalty)
        gradient = self.penalty * parameters
        for t, u in zip(self._chunks(self.t), self._chunks(self.u), strict=True):
            output, jacobian = self._jacobian(parameters, t)
            curvature += jacobian.T @ jacobian / len(self.t)
            gradient = gradient + jacobian.T @ (output - u) / len(self.t)
        return curvature, gradient

    def _jacobian(self, parameters: Array, t: Array) -> tuple[Array, Array]:
        """Outputs [n] and their derivatives by every parameter [n, P], by back-propagation."""
        output, activations = self._outputs(parameters, t)
        jacobian = np.empty((len(t), len(parameters)))
        back, end = np.ones((len(t), 1)), len(parameters)
        layers = list(self._layers(parameters))
        for inputs, (weight, _) in zip(activations[::-1], layers[::-1], strict=True):
            outputs, fed = weight.shape
            jacobian[:, end - outputs : end] = back
            start = end - outputs - outputs * fed
            jacobian[:, start : end - outputs] = (
                back[:, :, np.newaxis] * inputs[:, np.newaxis]
            ).reshape(len(t), -1)
            back = back @ weight * (1 - inputs**2)  # inputs are a tanh's, but for the first layer
            end = start
        return output, jacobian

    def _outputs(self, parameters: Array, t: Array) -> tuple[Array, list[Array]]:
        """The network's outputs [n], and the inputs of each layer."""
        activations = [t[:, np.newaxis]]
        layers = list(self._layers(parameters))
        for weight, bias in layers[:-1]:
            activations.append(np.tanh(activations[-1] @ weight.T + bias))
        weight, bias = layers[-1]
        return (activations[-1] @ weight.T + bias)[:, 0], activations

    def _layers(self, parameters: Array) -> Iterator[tuple[Array, Array]]:
        start = 0
        for outputs, inputs in self.shapes:
            middle, end = start + outputs * inputs, start + outputs * (inputs + 1)
            yield parameters[start:middle].reshape(outputs, inputs), parameters[middle:end]
            start = end

    @staticmethod
    def _chunks(values: Array) -> Iterator[Array]:
        for start in range(0, len(values), CHUNK):
            yield values[start : start + CHUNK]


def _network(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    hidden: tuple[int, ...],
    parameters: Array,
) -> CurveMLP:
    with torch.random.fork_rng(devices=[]):  # its own first weights are of no interest
        network = CurveMLP(x_range, y_range, hidden)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(parameters), network.parameters())
    return network
