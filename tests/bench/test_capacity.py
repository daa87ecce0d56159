"""The simulation of ``bench.capacity`` against what queueing theory knows, and its document."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.capacity import (
    BEGIN,
    DOCUMENT,
    END,
    README,
    lognormal,
    measured,
    published,
    ray_costs,
    simulate,
)

REQUESTS = 400_000


def exponential(generator: np.random.Generator, n: int) -> np.ndarray:
    return generator.exponential(1.0, n)


def constant(_: np.random.Generator, n: int) -> np.ndarray:
    return np.ones(n)


def wait_mmc(load: float, workers: int) -> float:
    """Mean wait of an M/M/c queue with mean service 1, by Erlang's C formula (1917)."""
    offered = load * workers
    last = offered**workers / math.factorial(workers) / (1 - load)
    others = sum(offered**k / math.factorial(k) for k in range(workers))
    return last / (others + last) / (workers * (1 - load))


def wait_mdc(load: float, workers: int) -> float:
    """Mean wait of an M/D/c queue with service 1, by Crommelin's formula (1932)."""
    offered = load * workers

    def tail(mean: float, least: int) -> float:
        """P(N ≥ least) of a Poisson variable."""
        below = sum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(least))
        return max(0.0, 1 - below)

    return sum(
        tail(i * offered, i * workers) - tail(i * offered, i * workers + 1) / load
        for i in range(1, 400)
    )


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_worker_is_m_m_1(load: float) -> None:
    found = simulate(load, exponential, 1, requests=REQUESTS, seed=1)
    assert found.mean_wait == pytest.approx(load / (1 - load), rel=0.05)
    # The time in the system is exponential, with mean 1 / (1 − load).
    assert found.p50 == pytest.approx(math.log(2) / (1 - load), rel=0.05)
    assert found.p99 == pytest.approx(math.log(100) / (1 - load), rel=0.08)
    assert found.busy == pytest.approx(load, rel=0.02)


@pytest.mark.parametrize("workers", [2, 8])
def test_several_workers_are_m_m_c(workers: int) -> None:
    found = simulate(0.8 * workers, exponential, workers, requests=REQUESTS, seed=2)
    assert found.mean_wait == pytest.approx(wait_mmc(0.8, workers), rel=0.08)


def test_crommelins_formula_is_pollaczeks_for_one_worker() -> None:
    for load in (0.3, 0.6, 0.8):
        assert wait_mdc(load, 1) == pytest.approx(load / (2 * (1 - load)), rel=1e-3)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_constant_times_are_m_d_c(workers: int) -> None:
    found = simulate(0.8 * workers, constant, workers, requests=REQUESTS, seed=3)
    assert found.mean_wait == pytest.approx(wait_mdc(0.8, workers), rel=0.06)


def test_times_are_drawn_as_they_were_measured() -> None:
    generator = np.random.default_rng(0)
    drawn = lognormal(2.0, 1.0, 1.5)(generator, 200_000)
    assert drawn.mean() == pytest.approx(2.0, rel=0.01)
    assert np.quantile(drawn, 0.99) / np.quantile(drawn, 0.5) == pytest.approx(1.5, rel=0.02)
    assert set(measured(np.array([1.0, 5.0]))(generator, 100)) == {1.0, 5.0}


def test_figures_come_from_the_benchmarks_page() -> None:
    kinds = {kind.name: kind.mean for kind in published(README.read_text("utf-8"))}
    assert len(kinds) == 4
    assert all(1e-5 < mean < 1 for mean in kinds.values())
    assert kinds["/gradient, 3 x"] < kinds["/classify, 2 KB PNG"]


def test_rays_costs_come_from_the_benchmarks_page() -> None:
    costs = ray_costs(README.read_text("utf-8"))
    requests = {request for request, _ in costs}
    assert requests == {"/gradient, 3 x", "/classify, 2 KB PNG"}
    assert all(1 < costs[each, "HAProxy"] < costs[each, "default"] for each in requests)
    head = "| request | default | 2 | 1 | 1 | 1 | 1 | 1 | 7.5 | 1 | 1 |".replace("request", "/x")
    assert ray_costs(head) == {("/x", "default"): 7.5}


def test_the_document_shows_what_the_command_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "bench.capacity"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    ).stdout
    shown = DOCUMENT.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == printed.strip(), "python -m bench.capacity --write renews the page"
