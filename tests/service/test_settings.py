"""Settings: where they come from, and what is said of those that are wrong."""

import os
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from service import command as service_command
from service.settings import Settings, unknown_variables

# What Kubernetes sets in the containers of a namespace with the Services gradserve (port 80, named
# http) and gradserve-train.
KUBERNETES = {
    "GRADSERVE_SERVICE_HOST": "10.0.0.1",
    "GRADSERVE_SERVICE_PORT": "80",
    "GRADSERVE_SERVICE_PORT_HTTP": "80",
    "GRADSERVE_PORT": "tcp://10.0.0.1:80",
    "GRADSERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
    "GRADSERVE_PORT_80_TCP_PROTO": "tcp",
    "GRADSERVE_PORT_80_TCP_PORT": "80",
    "GRADSERVE_PORT_80_TCP_ADDR": "10.0.0.1",
    "GRADSERVE_TRAIN_SERVICE_HOST": "10.0.0.2",
    "GRADSERVE_TRAIN_PORT": "tcp://10.0.0.2:80",
    "GRADSERVE_TRAIN_PORT_80_TCP_ADDR": "10.0.0.2",
}


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the service says if it is started so; it must not get as far as serving."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GRADSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("GRADSERVE_API_KEYFILE", "GRADSERVE_API_KEY_FILE"),
        ("GRADSERVE_API_KEYS_FILE", "GRADSERVE_API_KEY_FILE"),
        ("gradserve_alowed_hosts", "GRADSERVE_ALLOWED_HOSTS"),
        ("GRADSERVE_MAX_PIXEL", "GRADSERVE_MAX_PIXELS"),
        ("GRADSERVE_QQQ", "docs/deploying.md"),
    ],
)
def test_a_misspelt_variable_is_an_error(monkeypatch, variable: str, meant: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ValidationError, match=meant):
        Settings()


def test_what_kubernetes_sets_is_passed_over(monkeypatch) -> None:
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8000
    monkeypatch.setenv("GRADSERVE_PORT", "9000")
    assert Settings().port == 9000


def test_every_setting_is_known_and_nothing_without_the_prefix_is_read(monkeypatch) -> None:
    every = {f"GRADSERVE_{name.upper()}": "" for name in Settings.model_fields}
    assert unknown_variables(every, Settings.model_fields) == []
    for name, value in {"HOST": "x86_64-conda-linux-gnu", "PORT": "x", "WORKERS": "0"}.items():
        monkeypatch.setenv(name, value)
    assert (Settings().host, Settings().port, Settings().workers) == ("127.0.0.1", 8000, None)


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"GRADSERVE_PORT": "99999"}, (), "GRADSERVE_PORT (--port): Input should be less than"),
        ({}, ("--port", "65536"), "GRADSERVE_PORT (--port)"),
        ({}, ("--workers", "100000"), "GRADSERVE_WORKERS (--workers): Input should be less than"),
        ({"GRADSERVE_HOST": ""}, (), "GRADSERVE_HOST (--host)"),
        ({}, ("--workers", "0"), "GRADSERVE_WORKERS (--workers)"),
        (
            {"GRADSERVE_MAX_WAIT_SECONDS": "inf"},
            (),
            "GRADSERVE_MAX_WAIT_SECONDS: Input should be a",
        ),
        ({"GRADSERVE_PIN": "{a"}, (), "GRADSERVE_PIN: write it as model=version"),
        ({"GRADSERVE_PIN": "a=0"}, (), "GRADSERVE_PIN: Input should be greater than"),
        ({"GRADSERVE_ARTIFACTS": "http://x/y"}, (), "http:// is no object store"),
        pytest.param(
            {},
            ("--artifacts", "foo://x/y"),
            "(--artifacts): foo://x/y: foo:// is no object store",
            marks=pytest.mark.skipif(find_spec("fsspec") is None, reason="needs the extra s3"),
        ),
        (
            {"GRADSERVE_PROVIDERS": "Foo"},
            (),
            "GRADSERVE_PROVIDERS: Foo is not what ONNX Runtime has",
        ),
        ({"GRADSERVE_ALLOWED_HOSTS": "http://x/"}, (), "GRADSERVE_ALLOWED_HOSTS: write host names"),
        ({"GRADSERVE_CORS_ORIGINS": "x.org"}, (), "GRADSERVE_CORS_ORIGINS: write origins"),
        ({"GRADSERVE_OTLP_ENDPOINT": "foo"}, (), "GRADSERVE_OTLP_ENDPOINT: write an address"),
        ({"GRADSERVE_OTLP_ENDPOINT": "http://:4318"}, (), "GRADSERVE_OTLP_ENDPOINT: write an"),
        ({"GRADSERVE_API_KEYFILE": "keys"}, (), "did you mean GRADSERVE_API_KEY_FILE?"),
    ],
)
def test_the_command_names_the_variable_and_the_option(environment, arguments, said: str) -> None:
    done = command(environment, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "package", "said"),
    [
        (
            {"GRADSERVE_ARTIFACTS": "s3://bucket/live"},
            "s3fs",
            "[s3]', or build the image with --build-arg LOCK=s3",
        ),
        (
            {"GRADSERVE_ARTIFACTS": "s3://bucket/live"},
            "fsspec",
            "[s3]', or build the image with --build-arg LOCK=s3",
        ),
        (
            {"GRADSERVE_OTLP_ENDPOINT": "http://localhost:4318/v1/traces"},
            "opentelemetry",
            "[otel]', or build the image with --build-arg LOCK=s3",
        ),
    ],
)
def test_a_package_that_a_setting_needs_is_named(
    tmp_path, monkeypatch, capsys, environment, package: str, said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "--port", "0"])
    for name in (package, *(n for n in sys.modules if n.startswith(f"{package}."))):
        monkeypatch.setitem(sys.modules, name, None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert service_command.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(next(iter(environment))) and said in line


def test_a_port_in_use_names_the_option_that_changes_it(artifacts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command({"GRADSERVE_ARTIFACTS": str(artifacts)}, "--port", port)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "--port or GRADSERVE_PORT" in done.stderr
