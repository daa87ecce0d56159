"""``/models``: what is serving, what it is made of, and how good it is."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from contract.manifest import (
    ClassifierManifest,
    CurveManifest,
    FunctionManifest,
    Layer,
    Precision,
    Tensor,
)
from service.runtime.errors import ModelError
from service.runtime.loader import Model
from service.runtime.registry import Registry
from service.web.errors import NotFound
from service.web.openapi import problems
from service.web.state import services

Name = Annotated[
    str,
    Path(
        max_length=64,
        description="Name of a model",
        openapi_examples={"curve": {"value": "curve-mlp"}},
    ),
]

# Answers stay under 100 KB, however many models and versions there are.
PAGE = 100  # models, and versions of one
MOST_FUNCTIONS = 16  # names in an overview
MOST_METRICS = 32 * 1024  # bytes of JSON
MOST_REASON = 400  # characters
Limit = Annotated[int, Query(ge=1, le=PAGE, description="How many models to list")]
Offset = Annotated[int, Query(ge=0, description="How many models to pass over")]


class ModelOverview(BaseModel):
    """A model in one line."""

    model: str = Field(description="Its name", examples=["curve-mlp"])
    kind: str | None = Field(
        description="curve, classifier, sigmoid-conv or function; null if not serving"
    )
    state: Literal["serving", "not ready"] = Field(description="Does it answer requests?")
    version: int | None = Field(description="The version in service, if any", examples=[1])
    functions: list[str] = Field(
        description="What it computes; the first 16 names", examples=[["value", "gradient"]]
    )


class ModelList(BaseModel):
    """The models there are: those that serve first, by name."""

    models: list[ModelOverview]
    total: int = Field(description="How many there are on all pages", examples=[5])
    default_classifier: str | None = Field(
        description="The one that answers /classify and /explain where a request names none; null "
        "where that one isn't serving, or several others are",
        examples=["cifar-improved"],
    )


class VersionState(BaseModel):
    """One version of a model."""

    version: int = Field(description="Its number; larger is newer", examples=[1])
    state: Literal["serving", "refused", "verifying", "available"] = Field(
        description="available: a version that serves, or is pinned, goes before it"
    )
    reason: str | None = Field(default=None, description="Why it was refused")


class FunctionDetails(BaseModel):
    """A function of the model as it runs here."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    precision: Precision = Field(description="Precision of the graph that serves")
    maximum_absolute_error: float = Field(
        description="Largest difference from PyTorch measured when it was published"
    )
    not_used: tuple[str, ...] = Field(
        description="Variants that don't serve on this machine, and why: one doesn't agree with "
        "PyTorch here, or is slower here than the graph that serves"
    )


class ModelDetails(BaseModel):
    """A model with its versions, functions and figures."""

    model: str = Field(description="Its name", examples=["curve-mlp"])
    kind: str | None = Field(
        description="curve, classifier, sigmoid-conv or function; null if not serving"
    )
    state: Literal["serving", "not ready"]
    version: int | None = Field(description="The version in service, if any", examples=[1])
    versions: list[VersionState] = Field(
        description="The newest 100 and the one that serves, newest first"
    )
    version_counts: dict[str, int] = Field(
        description="How many versions there are, and how many of them were refused",
        examples=[{"all": 3, "refused": 1}],
    )
    created_utc: datetime | None = Field(default=None, description="When it was published")
    functions: dict[str, FunctionDetails] = Field(default={}, description="By name")
    metrics: dict[str, Any] = Field(
        default={},
        description="Headline figures of the training; where they are over 32 KiB, single numbers "
        "and words only",
    )
    domain: tuple[float, float] | None = Field(
        default=None, description="Smallest and largest x of the training data, of a curve"
    )
    coefficients: tuple[float, ...] | None = Field(
        default=None, description="w_m, …, w_0 of a polynomial in x"
    )
    classes: tuple[str, ...] | None = Field(default=None, description="Labels of a classifier")
    parameters: int | None = Field(
        default=None, description="Number of parameters, if /models/{model}/summary counts them"
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default={}, description="Smallest and largest number of each input's examples"
    )
    example: dict[str, Any] = Field(default={}, description="One row of every input")


class Summary(BaseModel):
    """The parameter summary of a model."""

    model: str = Field(description="Its name", examples=["cifar-baseline"])
    version: int = Field(description="The version in service", examples=[1])
    total: int = Field(description="Number of parameters", examples=[3177418])
    trainable: int | None = Field(
        default=None, description="How many of them were trained; null where not recorded"
    )
    multiply_adds: int = Field(description="Multiply-adds for one example", examples=[6400000])
    layers: tuple[Layer, ...] = Field(description="In order, each with its arithmetic")
    compared: dict[str, int] = Field(description="The same total by other means")


def router() -> APIRouter:
    """The endpoints about models."""
    routes = APIRouter(prefix="/models", tags=["models"])

    @routes.get("", summary="List the models", responses=problems(422))
    async def models(request: Request, limit: Limit = PAGE, offset: Offset = 0) -> ModelList:
        """The models in the artifacts folder, serving or not, a page of them."""
        registry = services(request).registry
        known = {*registry.models, *registry.refused, *(m.model for m in registry.missing())} - {""}
        names = sorted(known, key=lambda name: (name not in registry.models, name))
        page = names[offset : offset + limit]
        return ModelList(
            models=[_overview(name, registry) for name in page],
            total=len(names),
            default_classifier=_default_classifier(registry),
        )

    @routes.get("/{model}", summary="Describe a model", responses=problems(404, 422))
    async def details(request: Request, model: Name) -> ModelDetails:
        """Versions with their state, functions with their agreement, metrics."""
        registry = services(request).registry
        if model not in registry.refused and model not in registry.models:
            registry.get(model)
        return _details(model, registry)

    @routes.get(
        "/{model}/summary", summary="Count a model's parameters", responses=problems(404, 422, 503)
    )
    async def summary(request: Request, model: Name) -> Summary:
        """Every layer with its parameters, its multiply-adds and the arithmetic in words."""
        manifest = services(request).registry.get(model).manifest
        parameters = manifest.parameters
        if parameters is None:
            raise NotFound(f"{model} was published without a count of its parameters")
        return Summary(
            model=manifest.model,
            version=manifest.version,
            total=parameters.total,
            trainable=parameters.trainable,
            multiply_adds=parameters.multiply_adds,
            layers=parameters.layers,
            compared=parameters.compared,
        )

    return routes


def _default_classifier(registry: Registry) -> str | None:
    try:
        model, _ = registry.classifier(None)
    except ModelError:
        return None
    return model.manifest.model


def _overview(name: str, registry: Registry) -> ModelOverview:
    model = registry.models.get(name)
    if model is None:
        return ModelOverview(model=name, kind=None, state="not ready", version=None, functions=[])
    manifest = model.manifest
    return ModelOverview(
        model=name,
        kind=manifest.kind,
        state="serving",
        version=manifest.version,
        functions=list(manifest.functions)[:MOST_FUNCTIONS],
    )


def _details(name: str, registry: Registry) -> ModelDetails:
    model = registry.models.get(name)
    versions = _versions(name, registry, model)
    counts = {
        "all": len(registry.versions.get(name, ())),
        "refused": len(registry.refused.get(name, ())),
    }
    if model is None:
        return ModelDetails(
            model=name,
            kind=None,
            state="not ready",
            version=None,
            versions=versions,
            version_counts=counts,
        )
    manifest = model.manifest
    curve = manifest if isinstance(manifest, CurveManifest) else None
    return ModelDetails(
        model=name,
        kind=manifest.kind,
        state="serving",
        version=manifest.version,
        versions=versions,
        version_counts=counts,
        created_utc=manifest.created_utc,
        functions={
            function: FunctionDetails(
                inputs=manifest.functions[function].inputs,
                outputs=manifest.functions[function].outputs,
                precision=loaded.graph.precision,
                maximum_absolute_error=loaded.graph.agreement.maximum_absolute_error,
                not_used=loaded.refused,
            )
            for function, loaded in model.functions.items()
        },
        metrics=_metrics(dict(manifest.metrics)),
        domain=curve.domain if curve else None,
        coefficients=curve.coefficients if curve else None,
        classes=manifest.classes if isinstance(manifest, ClassifierManifest) else None,
        parameters=manifest.parameters.total if manifest.parameters else None,
        ranges=manifest.ranges if isinstance(manifest, FunctionManifest) else {},
        example=manifest.example if isinstance(manifest, FunctionManifest) else {},
    )


def _versions(name: str, registry: Registry, model: Model | None) -> list[VersionState]:
    refused = registry.refused.get(name, {})
    serving = model.manifest.version if model else None
    verifying = registry.verifying(name)
    known = registry.versions.get(name, [])
    shown = known[:PAGE] if serving is None or serving in known[:PAGE] else [*known[:PAGE], serving]
    return [
        VersionState(
            version=version,
            state="serving"
            if version == serving
            else "refused"
            if version in refused
            else "verifying"
            if version in verifying
            else "available",
            reason=refused[version].reason[:MOST_REASON] if version in refused else None,
        )
        for version in shown
    ]


def _metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(metrics)) <= MOST_METRICS:
        return metrics
    single = {k: v for k, v in metrics.items() if isinstance(v, int | float | str)}
    return single if len(json.dumps(single)) <= MOST_METRICS else {}
