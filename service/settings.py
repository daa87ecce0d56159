"""Every setting of the service: typed, documented, read from ``GRADSERVE_*`` variables."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024
PREFIX = "GRADSERVE_"
# GRADSERVE_ variables of the tests, the benchmark and docker-compose: not settings of the service.
NOT_SETTINGS = {"LONG", "TEST_IMAGE", "BENCH_TOKEN", "LISTEN", "LISTEN_PORT", "MEMORY", "CPUS"}
# What Kubernetes sets in every container of a namespace that has a Service called gradserve, or
# gradserve-something: https://kubernetes.io/docs/concepts/services-networking/service/
KUBERNETES = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)"
)
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/]+")
KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")  # the value of …_PORT


def unknown_variables(environment: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """An error message for each unknown ``GRADSERVE_…`` variable, with the closest setting."""
    names = {name.upper() for name in known}
    sentences = []
    for variable, value in sorted(environment.items()):
        name = variable.upper()
        if not name.startswith(PREFIX):
            continue
        name = name.removeprefix(PREFIX)
        injected = KUBERNETES.fullmatch(name) or (
            name.endswith("PORT") and KUBERNETES_ADDRESS.match(value)
        )
        if name in names | NOT_SETTINGS or injected:
            continue
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else "; docs/deploying.md lists them"
        sentences.append(f"{variable}: there is no such setting{hint}")
    return sentences


class Settings(BaseSettings):
    """Settings of one service. A field ``max_x`` is set by the variable ``GRADSERVE_MAX_X``.

    Lists are written with commas: ``GRADSERVE_REQUIRE=curve-mlp,cifar-improved``.
    """

    model_config = SettingsConfigDict(
        env_prefix="GRADSERVE_", extra="forbid", frozen=True, allow_inf_nan=False
    )

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 for all"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 for any")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,  # a thousand more of them leave no room to stop them
        description="Processes; by default one for each core that may be used",
    )
    artifacts: Path | str = Field(
        default=Path("artifacts"),
        description="Folder with <model>/<version>/manifest.json, or s3://bucket/prefix",
    )
    cache: Path | None = Field(
        default=None,
        description="Folder for copies from an object store; gradserve in ~/.cache by default",
    )
    keep: int = Field(
        default=2, ge=1, description="Versions of a model that are copied from an object store"
    )
    store_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Seconds between looks at an object store"
    )
    precision: Literal["auto", "fp32"] = Field(
        default="auto",
        description="auto: int8 graphs serve where their check passes on this machine and they are "
        "faster; fp32: never",
    )
    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("CPUExecutionProvider",),
        min_length=1,
        description="ONNX Runtime execution providers, best first",
    )
    session_threads: int = Field(
        default=1, ge=1, description="Threads of one ONNX Runtime session; workers scale better"
    )
    require: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Models without which the service is not ready"
    )
    pin: Annotated[dict[str, Annotated[int, Field(ge=1)]], NoDecode] = Field(
        default={},
        description="Versions to pin: curve-mlp=2,cifar-improved=1",
    )
    default_classifier: str = Field(
        default="cifar-improved",
        min_length=1,
        max_length=64,
        description="The classifier of /classify and /explain where a request names none; if there "
        "is no such model, the only classifier that there is",
    )
    watch_seconds: float = Field(
        default=1.0, gt=0, le=60, description="Seconds between looks at the artifacts folder"
    )
    copy_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Not ready while an incomplete version has changed within this time, s",
    )
    verify_seconds: float = Field(
        default=30.0, gt=0, description="Processor time that verifying a version may take, s"
    )
    verify_bytes: int = Field(
        default=1024 * MIB, ge=64 * MIB, description="Memory that verifying may take, bytes"
    )

    max_x: int = Field(default=100_000, ge=1, description="Most x in a request")
    max_numbers: int = Field(default=1_000_000, ge=1, description="Most numbers in an answer")
    max_json_bytes: int = Field(default=4 * MIB, ge=64, description="Largest JSON body, bytes")
    max_upload_bytes: int = Field(default=16 * MIB, ge=64, description="Largest upload, bytes")
    max_json_elements: int = Field(
        default=1_000_000,
        ge=1,
        description="Most elements of a JSON body; an array counts as 10 numbers, a name as 100",
    )
    max_memory_bytes: int = Field(
        default=352 * MIB,
        ge=1,
        description="What all requests may hold (bodies, JSON, pictures), per worker, bytes",
    )
    max_buffered_bytes: int = Field(
        default=128 * MIB, ge=64, description="The part of that for bodies, per worker, bytes"
    )
    max_wait_seconds: float = Field(
        default=2.0, gt=0, description="A request whose work would begin later is refused (429), s"
    )
    max_pixels: int = Field(default=50_000_000, ge=1, description="Most pixels of an image")
    max_request_megapixels: int = Field(
        default=200,
        ge=1,
        description="Most work of decoding all images of a request, in megapixels of an RGB PNG",
    )
    max_side: int = Field(default=65_535, ge=1, description="Longest side of an image, pixels")
    max_images: int = Field(default=64, ge=1, description="Most images in a request")
    body_seconds: float = Field(default=15.0, gt=0, description="Time for a body to arrive, s")
    queue_depth: int = Field(
        default=64, ge=1, description="Images (or MiB of them) that may wait, per worker"
    )
    batch: int = Field(
        default=8, ge=1, description="Rows of several waiting requests that run together"
    )

    max_connections: int = Field(
        default=4096,
        ge=16,
        description="Connections of a worker; for one more, those idle longest are closed",
    )
    header_seconds: float = Field(
        default=10.0, gt=0, description="Time for the head of a request to arrive, s"
    )
    keep_alive_seconds: int = Field(
        default=65, ge=1, description="Keep-alive timeout; longer than the proxy's, s"
    )
    write_seconds: float = Field(
        default=30.0, gt=0, description="Time a client may leave an answer unread, s"
    )
    drain_delay_seconds: float = Field(
        default=1.0, ge=0, description="From SIGTERM until connections are refused, s"
    )
    drain_seconds: float = Field(
        default=10.0, gt=0, description="Time for accepted requests to be answered after that, s"
    )
    worker_timeout_seconds: float = Field(
        default=3.0,
        gt=0.5,
        description="A worker that is idle and without a heartbeat for so long is replaced, s",
    )
    worker_busy_seconds: float = Field(
        default=30.0,
        gt=0.5,
        description="A worker without a heartbeat for so long is replaced even if it is busy, s",
    )

    api_key_file: Path | None = Field(
        default=None, description="File of API keys, one a line; without it no key is asked for"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host names that requests may carry; any, if none is given"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Origins whose pages may call the service; none by default"
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: JSON unless standard error is a terminal"
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Where traces are sent, such as http://localhost:4318/v1/traces",
    )
    access_log: bool = Field(default=True, description="Write a line for each request")

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown(cls, values: Any) -> Any:
        """Refuse misspelt variables: an ignored GRADSERVE_API_KEY_FILE would ask for no key."""
        sentences = unknown_variables(os.environ, cls.model_fields)
        if sentences:
            raise ValueError("\n".join(sentences))
        return values

    @field_validator("artifacts", mode="after")
    @classmethod
    def folder_or_address(cls, value: Path | str) -> Path | str:
        """A path, unless it is an address such as s3://bucket/prefix."""
        return value if isinstance(value, str) and "://" in value else Path(value)

    @field_validator("otlp_endpoint", mode="after")
    @classmethod
    def web_address(cls, value: str | None) -> str | None:
        """Refuse what traces can't be sent to; an empty one is none."""
        if not value:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("write an address such as http://localhost:4318/v1/traces")
        return value

    @property
    def store(self) -> str | None:
        """The address of the object store that the artifacts come from, if it isn't a folder."""
        return self.artifacts if isinstance(self.artifacts, str) else None

    @property
    def folder(self) -> Path:
        """Where on this machine the artifacts are: of an object store, copies of them."""
        if isinstance(self.artifacts, Path):
            return self.artifacts
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(self.artifacts.rstrip("/").encode()).hexdigest()[:16]
        return (self.cache or home / "gradserve") / name

    @field_validator("port", mode="before")
    @classmethod
    def not_an_address(cls, value: Any) -> Any:
        """Ignore what Kubernetes sets for a Service called gradserve: tcp://10.0.0.1:80."""
        if isinstance(value, str) and KUBERNETES_ADDRESS.match(value):
            return cls.model_fields["port"].default
        return value

    @field_validator("providers", "require", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        """Read ``a,b`` as a list."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_hosts", mode="after")
    @classmethod
    def hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse addresses, which no Host is ever equal to."""
        if any("/" in host for host in value):
            raise ValueError("write host names, such as models.example.org, without http:// or /")
        return value

    @field_validator("cors_origins", mode="after")
    @classmethod
    def origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what no browser ever sends as Origin: a path, or a name without its scheme."""
        if not all(ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("write origins, such as https://pages.example.org, without a path")
        return value

    @field_validator("pin", mode="before")
    @classmethod
    def pairs(cls, value: Any) -> Any:
        """Read ``model=version,model=version`` (or a JSON object) as a mapping."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("{"):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("write it as model=version,model=version, or as JSON") from None
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise ValueError("write it as model=version,model=version")
        return {model.strip(): version.strip() for model, _, version in pairs}
