"""Fit a Gaussian process to points, averaging over its hyperparameters.

The hyperparameters are the length scale ℓ and the ratio of the noise's variance to the process's;
amplitude and straight line are integrated out (restricted maximum likelihood: Rasmussen and
Williams 2006, chapter 2.7). The likelihood is computed on a grid of both, which finds every
maximum. The best nodes of the grid are averaged with their likelihood as weight: intervals
from the single best are too narrow where points are few (`python -m bench.coverage` measures that).
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch

from training.errors import JobError
from training.fit.fitted import Array, Fitted, mean_squared_error
from training.networks.curve import centre_and_half
from training.networks.process import GaussianProcess, Posterior, ProcessDeviation

MOST_POINTS = 200  # kernels of the graph; with more points, neighbours are averaged
LEAST_POINTS = 5
LENGTHS = np.geomspace(0.05, 8, 16)  # ℓ, in half widths of the data
RATIOS = np.geomspace(1e-8, 1e3, 23)  # variance of the noise over that of the process
# The least variance of the noise of a mean of many neighbours, over that of the process: with less,
# the kernel matrix is so ill-conditioned that the graphs' standard errors lose their digits.
LEAST_NOISE = 1e-6
NODES = 8  # most that are averaged
LEAST_WEIGHT = 0.02  # relative to the best node's; lighter nodes are left out
EMPTY = 1e-12  # of the variance of y: where noise is less than that it is rounding


@dataclass(frozen=True)
class Node:
    """A choice of hyperparameters: ℓ in x, standard deviation of the noise in y, weight."""

    length: float
    noise: float
    weight: float


@dataclass(frozen=True)
class ProcessFit(Fitted):
    """The process conditioned on the points, and the hyperparameters that were averaged.

    ``kernels``: how many points it was conditioned on, averaged neighbours counted as one.
    """

    nodes: tuple[Node, ...]
    kernels: int


def fit_process(x: Array, y: Array) -> ProcessFit:
    """Condition a Gaussian process on points.

    Raises JobError if there are fewer than 5 different x: the line and the noise take as many.
    """
    if len(np.unique(x)) < LEAST_POINTS:
        raise JobError(f"a Gaussian process needs at least {LEAST_POINTS} different x")
    scaling = centre_and_half(float(x.min()), float(x.max()))
    centre, half = scaling.tolist()
    middle, scale = float(y.mean()), float(y.std()) or 1.0
    t, u = (x - centre) / half, (y - middle) / scale
    data = _averaged(t, u)
    likelihood = np.array([_likelihoods(data, float(length)) for length in LENGTHS])
    if len(data.t) < len(x):
        likelihood[:, LEAST_NOISE * data.counts.max() > RATIOS] = -np.inf
    weights = np.exp(likelihood - likelihood.max())
    order = np.argsort(-weights, axis=None)[:NODES]
    kept = [index for index in order if weights.flat[index] >= LEAST_WEIGHT]
    total = sum(weights.flat[index] for index in kept)
    parts: list[Posterior] = []
    nodes = []
    for index in kept:
        row, column = np.unravel_index(index, weights.shape)
        length, ratio = float(LENGTHS[row]), float(RATIOS[column])
        part = _condition(data, length, ratio, float(weights.flat[index] / total))
        parts.append(part)
        noise = math.sqrt(float(part.amplitude) * ratio) * scale
        nodes.append(Node(length * half, noise, float(part.weight)))
    y_scaling = torch.tensor([middle, scale], dtype=torch.float64)
    process = Posterior(
        **{
            field.name: torch.stack([getattr(part, field.name) for part in parts])
            for field in fields(Posterior)
        }
    )
    network = GaussianProcess(torch.from_numpy(data.t), scaling, y_scaling, process)
    return ProcessFit(
        network=network,
        mse=mean_squared_error(network, x, y),
        deviation=ProcessDeviation(network, process),
        degrees_of_freedom=float(len(x) - 2),
        nodes=tuple(nodes),
        kernels=len(data.t),
    )


@dataclass(frozen=True)
class _Data:
    """Points, or means of neighbours: t, u and how many went into each [N]; and what is left
    within these groups: a sum of squares and its degrees of freedom."""

    t: Array
    u: Array
    counts: Array
    squares: float
    freedom: int


def _averaged(t: Array, u: Array) -> _Data:
    """The points as they are, in order; of many, groups of neighbours, each by its mean.

    What a group's points differ by from a line of their own is noise, and is kept as such.
    """
    order = np.argsort(t, kind="stable")
    t, u = t[order], u[order]
    if len(t) <= MOST_POINTS:
        return _Data(t, u, np.ones(len(t)), 0.0, 0)
    groups = np.array_split(np.arange(len(t)), MOST_POINTS)
    squares, freedom, rows = 0.0, 0, []
    for group in groups:
        at, values = t[group], u[group]
        rows.append((at.mean(), values.mean(), len(group)))
        off = at - at.mean()
        spread = float(off @ off)
        slope = float(off @ values) / spread if spread > 0 else 0.0
        rest = values - values.mean() - slope * off
        squares += float(rest @ rest)
        freedom += max(0, len(group) - 1 - (spread > 0))
    means = np.array(rows)
    return _Data(means[:, 0], means[:, 1], means[:, 2], squares, freedom)


def _likelihoods(data: _Data, length: float) -> Array:
    """The restricted log likelihood at each of ``RATIOS``, up to a constant.

    With u weighted by √count, noise is equal for all, and one decomposition serves every ratio.
    """
    root = np.sqrt(data.counts)
    line = np.stack([np.ones_like(data.t), data.t], axis=1) * root[:, np.newaxis]
    rest = np.linalg.qr(line, mode="complete")[0][:, 2:]
    similar = root[:, np.newaxis] * _kernel(data.t, length) * root
    values, vectors = np.linalg.eigh(rest.T @ similar @ rest)
    squares = (vectors.T @ (rest.T @ (root * data.u))) ** 2
    variances = np.maximum(values, 0)[:, np.newaxis] + RATIOS
    freedom = len(values) + data.freedom
    error = (squares[:, np.newaxis] / variances).sum(0) + data.squares / RATIOS
    result: Array = -0.5 * (
        np.log(variances).sum(0)
        + data.freedom * np.log(RATIOS)
        + freedom * np.log(np.maximum(error, EMPTY * freedom))
    )
    return result


def _condition(data: _Data, length: float, ratio: float, weight: float) -> Posterior:
    """One of the J; its tensors lack the first dimension."""
    covariance = _kernel(data.t, length) + np.diag(ratio / data.counts)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    line = np.stack([np.ones_like(data.t), data.t], axis=1)
    whitened_line, whitened_u = whiten @ line, whiten @ data.u
    line_covariance = np.linalg.inv(whitened_line.T @ whitened_line)
    coefficients = line_covariance @ (whitened_line.T @ whitened_u)
    rest = whitened_u - whitened_line @ coefficients
    freedom = len(data.t) - 2 + data.freedom
    amplitude = (float(rest @ rest) + data.squares / ratio) / freedom
    return Posterior(
        weight=_number(weight),
        rate=_number(math.sqrt(7) / length),
        amplitude=_number(max(amplitude, EMPTY)),
        line=torch.from_numpy(coefficients),
        alpha=torch.from_numpy(whiten.T @ rest),
        whiten=torch.from_numpy(whiten),
        whitened_line=torch.from_numpy(whitened_line),
        line_root=torch.from_numpy(np.linalg.cholesky(line_covariance)),
    )


def _number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _kernel(t: Array, length: float) -> Array:
    s = math.sqrt(7) / length * np.abs(t[:, np.newaxis] - t)
    similar: Array = (1 + s * (1 + s * (2 / 5 + s / 15))) * np.exp(-s)
    return similar
