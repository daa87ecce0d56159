"""``/models``: what is serving, what it is made of, and how good it is."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from contract.manifest import (
    ClassifierManifest,
    CurveManifest,
    Layer,
    Precision,
    Tensor,
)
from contract.store import list_models, list_versions
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


class ModelOverview(BaseModel):
    """A model in one line."""

    model: str = Field(description="Its name", examples=["curve-mlp"])
    kind: str | None = Field(
        description="curve, classifier, sigmoid-conv or function; null if not serving"
    )
    state: Literal["serving", "not ready"] = Field(description="Does it answer requests?")
    version: int | None = Field(description="The version in service, if any", examples=[1])
    functions: list[str] = Field(description="What it computes", examples=[["value", "gradient"]])


class ModelList(BaseModel):
    """Every model there is."""

    models: list[ModelOverview]


class VersionState(BaseModel):
    """One version of a model."""

    version: int = Field(description="Its number; larger is newer", examples=[1])
    state: Literal["serving", "refused", "available"] = Field(
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
        description="Faster graphs that did not agree with PyTorch on this machine"
    )


class ModelDetails(BaseModel):
    """A model with its versions, functions and figures."""

    model: str = Field(description="Its name", examples=["curve-mlp"])
    kind: str | None = Field(
        description="curve, classifier, sigmoid-conv or function; null if not serving"
    )
    state: Literal["serving", "not ready"]
    version: int | None = Field(description="The version in service, if any", examples=[1])
    versions: list[VersionState] = Field(description="Newest first")
    created_utc: datetime | None = Field(default=None, description="When it was published")
    functions: dict[str, FunctionDetails] = Field(default={}, description="By name")
    metrics: dict[str, Any] = Field(default={}, description="Headline figures of the training")
    domain: tuple[float, float] | None = Field(
        default=None, description="Smallest and largest x of the training data, of a curve"
    )
    coefficients: tuple[float, ...] | None = Field(
        default=None, description="w_m, …, w_0 of a polynomial in x"
    )
    classes: tuple[str, ...] | None = Field(default=None, description="Labels of a classifier")


class Summary(BaseModel):
    """The parameter summary of a model."""

    model: str = Field(description="Its name", examples=["cifar-baseline"])
    version: int = Field(description="The version in service", examples=[1])
    total: int = Field(description="Number of parameters", examples=[3177418])
    multiply_adds: int = Field(description="Multiply-adds for one example", examples=[6400000])
    layers: tuple[Layer, ...] = Field(description="In order, each with its arithmetic")
    compared: dict[str, int] = Field(description="The same total by other means")


def router() -> APIRouter:
    """The endpoints about models."""
    routes = APIRouter(prefix="/models", tags=["models"])

    @routes.get("", summary="List the models")
    async def models(request: Request) -> ModelList:
        """Every model in the artifacts folder, serving or not."""
        registry = services(request).registry
        names = sorted(
            {*registry.models, *registry.refused, *(m.model for m in registry.missing())}
        )
        return ModelList(models=[_overview(name, registry) for name in names if name])

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
            multiply_adds=parameters.multiply_adds,
            layers=parameters.layers,
            compared=parameters.compared,
        )

    return routes


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
        functions=list(manifest.functions),
    )


def _details(name: str, registry: Registry) -> ModelDetails:
    model = registry.models.get(name)
    versions = _versions(name, registry, model)
    if model is None:
        return ModelDetails(
            model=name, kind=None, state="not ready", version=None, versions=versions
        )
    manifest = model.manifest
    curve = manifest if isinstance(manifest, CurveManifest) else None
    return ModelDetails(
        model=name,
        kind=manifest.kind,
        state="serving",
        version=manifest.version,
        versions=versions,
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
        metrics=dict(manifest.metrics),
        domain=curve.domain if curve else None,
        coefficients=curve.coefficients if curve else None,
        classes=manifest.classes if isinstance(manifest, ClassifierManifest) else None,
    )


def _versions(name: str, registry: Registry, model: Model | None) -> list[VersionState]:
    refused = registry.refused.get(name, {})
    serving = model.manifest.version if model else None
    # Only a model found in the folder has its versions looked up: no name from a request is a path.
    known = list_versions(registry.root, name) if name in list_models(registry.root) else []
    return [
        VersionState(
            version=version,
            state="serving"
            if version == serving
            else "refused"
            if version in refused
            else "available",
            reason=refused[version].reason if version in refused else None,
        )
        for version in known
    ]
