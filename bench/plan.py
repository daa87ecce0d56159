"""What is measured, for how long: the whole benchmark, and the quick one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from bench import pictures
from bench.measure import Step
from bench.servers import FLOOR, Server
from bench.subjects import Graph, Question, many_pictures, point_question

COMPARED_AT = 16  # connections
SEVERAL_X = 3
MANY_X = 10_000
# Seconds; what is left then gets one second a load, so that all ends within 25 minutes.
SHORTEN_AFTER = 17 * 60
OVERLOADED_BY = 640  # connections
OVERLOAD = f"overload: {OVERLOADED_BY} connections that ask again at once"


@dataclass(frozen=True)
class Plan:
    """Connections and seconds of each load."""

    connections: tuple[int, ...]
    seconds: dict[pictures.Picture, float]
    gradient_seconds: float
    floor_seconds: float
    beside_seconds: float
    """Of our own service, right before and right after each load it is held against; 0: not."""
    overload_seconds: float
    """Of each slice of overload, and of the knee before it; 0: not."""
    extras: bool
    """Also overload, many images in a request and other numbers of x, of our own service."""

    def shortened(self, limit: float | None) -> Self:
        """The same with no load longer than ``limit`` seconds; None changes nothing."""
        if limit is None:
            return self
        return replace(
            self,
            seconds={picture: min(limit, value) for picture, value in self.seconds.items()},
            gradient_seconds=min(limit, self.gradient_seconds),
            floor_seconds=min(limit / 5, self.floor_seconds),
            beside_seconds=min(limit, self.beside_seconds),
            overload_seconds=min(limit, self.overload_seconds),
        )


FULL = Plan(
    connections=(1, COMPARED_AT, 64),
    seconds={pictures.CIFAR_SIZE: 5, pictures.WEB_SIZE: 3, pictures.PHOTO_SIZE: 5},
    gradient_seconds=4,
    floor_seconds=0.7,
    beside_seconds=2,
    overload_seconds=3,
    extras=True,
)
QUICK = Plan(
    connections=(COMPARED_AT,),
    seconds={pictures.CIFAR_SIZE: 2, pictures.PHOTO_SIZE: 3},
    gradient_seconds=2,
    floor_seconds=0.2,
    beside_seconds=0,
    overload_seconds=0,
    extras=False,
)


def classify_steps(
    plan: Plan,
    server: Server,
    questions: dict[pictures.Picture, Question],
    fast: Question | None,
    scratch: Path,
) -> list[Step]:
    """The loads of one image server; ``fast`` is asked of ours alone."""
    steps = [
        Step(question, connections, plan.seconds[picture])
        for picture, question in questions.items()
        for connections in plan.connections
    ]
    if fast is not None and server.role == "ours":
        seconds = plan.seconds[pictures.CIFAR_SIZE]
        steps += [Step(fast, connections, seconds) for connections in plan.connections]
    if plan.extras and server.role == "ours":
        small = questions[pictures.CIFAR_SIZE]
        steps.append(Step(replace(small, name=OVERLOAD), OVERLOADED_BY, 5))
        steps += [
            Step(many_pictures(small, count, scratch / f"{count}-images"), 1, 2)
            for count in (1, 8, 64)
        ]
    return steps


def floor_steps(plan: Plan, questions: dict[pictures.Picture, Question]) -> list[Step]:
    """The loads of the server that only reads: it answers a constant, which is never wrong."""
    return [
        Step(replace(question, expected=None), COMPARED_AT, plan.seconds[picture])
        for picture, question in questions.items()
    ]


def gradient_steps(plan: Plan, server: Server, derivative: Graph, scratch: Path) -> list[Step]:
    """The loads of one server of derivatives, each in the JSON that it takes."""

    def question(count: int) -> Question:
        return point_question(derivative, count, server.points, scratch / f"{count}-points")

    steps = [
        Step(question(SEVERAL_X), connections, plan.gradient_seconds)
        for connections in plan.connections
    ]
    counts = (1, 100, MANY_X, 100_000) if plan.extras and server.role == "ours" else (MANY_X,)
    return steps + [Step(question(count), 1, 2) for count in counts]


def steps_of(
    plan: Plan,
    server: Server,
    questions: dict[pictures.Picture, Question],
    fast: Question | None,
    derivative: Graph,
    scratch: Path,
) -> list[Step]:
    """The loads of a server. Those whose bodies are made for it are written to ``scratch``."""
    if server is FLOOR:
        return floor_steps(plan, questions)
    if server.endpoint == "classify":
        return classify_steps(plan, server, questions, fast, scratch)
    return gradient_steps(plan, server, derivative, scratch)


def beside_steps(plan: Plan, ours: list[Step]) -> list[Step]:
    """Of the loads of our own service those by which it is compared, to repeat beside a server."""
    return [
        replace(step, seconds=plan.beside_seconds)
        for step in ours
        if step.connections == COMPARED_AT
    ]
