"""The service's image, if there is one: what is in it, and what Kubernetes' manifests rely on.

docker build -t gradserve .
GRADSERVE_TEST_IMAGE=gradserve make test ARGS=tests/end_to_end/test_container.py

Each container runs as the pod of deploy/kubernetes/base does: that user, those arguments and
limits, that read-only file system, and no init process.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.containers import IMAGE, Load, ask, docker, port_of, wait_until
from tests.hostile import costly
from tests.hostile.wire import exchange

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed here")

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000
WORKER_BYTES = 600 * MEGABYTE  # that a worker may hold under the worst input
EVENTS = ("memory.events", "memory/memory.oom_control")
PEAK = ("memory.peak", "memory/memory.max_usage_in_bytes")

pytestmark = pytest.mark.skipif(not IMAGE, reason="GRADSERVE_TEST_IMAGE names no image")

POD: dict[str, Any] = yaml.safe_load(
    (ROOT / "deploy/kubernetes/base/deployment.yaml").read_text("utf-8")
)["spec"]["template"]["spec"]
API: dict[str, Any] = POD["containers"][0]


@contextmanager
def pod(
    artifacts: Path = ROOT / "artifacts", *, memory: str = "", **settings: object
) -> Iterator[str]:
    """A container as the manifest asks for it, or with another limit of memory."""
    limits = API["resources"]["limits"]
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    # Kubernetes' Mi and Gi are docker's m and g.
    limit = memory or limits["memory"].lower().removesuffix("i")
    words = ["--memory", limit, "--memory-swap", limit, "--cpus", limits["cpu"]]
    for mount in API["volumeMounts"]:
        if (size := volumes[mount["name"]].get("emptyDir", {}).get("sizeLimit")) is not None:
            words += ["--tmpfs", f"{mount['mountPath']}:size={size.lower().removesuffix('i')}"]
    environment = {each["name"]: each["value"] for each in API["env"]}
    environment |= {f"GRADSERVE_{name.upper()}": str(value) for name, value in settings.items()}
    for name, value in environment.items():
        words += ["--env", f"{name}={value}"]
    user = f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}"
    container = docker(
        *("run", "--detach", "--read-only", "--cap-drop", "ALL", "--user", user),
        *("--security-opt", "no-new-privileges:true", "--publish", "127.0.0.1::8000"),
        *("--volume", f"{artifacts}:{environment['GRADSERVE_ARTIFACTS']}:ro", *words),
        *(IMAGE, *API["args"]),
    )
    try:
        yield container
    finally:
        docker("rm", "--force", container)


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A pod that is ready."""
    with pod() as started:
        wait_until_ready(started)
        yield started


def probe(container: str, name: str) -> int:
    """What one of the manifest's probes is answered; 0 for nothing."""
    return ask(port_of(container), "GET", API[name]["httpGet"]["path"])[0]


def wait_until_ready(container: str) -> None:
    """Wait for the readiness probe, no longer than the startup probe allows."""
    startup = API["startupProbe"]
    allowed = startup["periodSeconds"] * startup["failureThreshold"]
    wait_until(lambda: probe(container, "startupProbe") == 200, "it starts", allowed)
    wait_until(lambda: probe(container, "readinessProbe") == 200, "it is ready")


def state(container: str) -> dict[str, Any]:
    """The engine's own account of a container."""
    found: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    return found


def accounted(container: str, names: tuple[str, str]) -> str:
    """What the kernel has noted of a container's memory, by the names of cgroups 2 and 1."""
    paths = " ".join(f"/sys/fs/cgroup/{name}" for name in names)
    return docker("exec", container, "sh", "-c", f"cat {paths} 2>/dev/null || true")


def test_the_image_is_small() -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) <= 450 * MEGABYTE


def test_no_pytorch_is_in_it() -> None:
    found = docker("run", "--rm", "--user", "0", IMAGE, "find", "/", "-xdev", "-name", "*torch*")
    assert found == ""


def test_it_runs_as_nobody_in_particular_by_itself() -> None:
    assert docker("run", "--rm", IMAGE, "id", "-u") == "10001"


def test_it_has_the_manifests_user_and_no_rights(container: str) -> None:
    status = dict(
        line.split(":", 1)
        for line in docker("exec", container, "cat", "/proc/1/status").splitlines()
    )
    security = POD["securityContext"]
    assert set(status["Uid"].split()) == {str(security["runAsUser"])}
    assert set(status["Gid"].split()) == {str(security["runAsGroup"])}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"


def test_it_answers_and_writes_nothing_outside_tmp(container: str) -> None:
    port = port_of(container)
    status, answer = ask(port, "POST", "/predict", b'{"x": [0.5]}')
    assert (status, json.loads(answer)["model"]) == (200, "curve-mlp")
    picture = (ROOT / "examples" / "cat.jpg").read_bytes()
    status, answer = ask(port, "POST", "/classify", picture, "image/jpeg")
    assert json.loads(answer)["results"][0]["top"][0]["label"] == "cat"
    assert ask(port, "GET", "/metrics")[0] == 200
    changed = {line.split()[1] for line in docker("diff", container).splitlines()}
    # The places where something is mounted.
    assert changed <= {"/app", "/app/artifacts", "/tmp"}
    with pytest.raises(AssertionError, match="Read-only file system"):
        docker("exec", container, "touch", "/app/new")


def test_the_engines_own_check_finds_it_healthy(container: str) -> None:
    wait_until(lambda: state(container)["Health"]["Status"] == "healthy", docker("logs", container))


def test_pods_without_models_live_but_are_not_ready(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    tmp_path.chmod(0o755)
    with pod(folder) as empty:
        wait_until(lambda: probe(empty, "livenessProbe") == 200, "it lives")
        assert probe(empty, "readinessProbe") == 503
        for model in (ROOT / "artifacts").iterdir():
            shutil.copytree(model, folder / model.name)
        wait_until_ready(empty)
        assert state(empty)["Running"]


def test_sigterm_under_load_loses_no_answer() -> None:
    """What Kubernetes does with a pod: the preStop command, SIGTERM, and patience for a while."""
    with pod(drain_delay_seconds=3) as ending:
        wait_until_ready(ending)
        with Load(port_of(ending)) as load:
            load.wait_for(20)
            sleep, _ = API["lifecycle"]["preStop"]["exec"]["command"]
            docker("exec", ending, sleep, "0.1")
            docker("kill", "--signal", "TERM", ending)
            # Endpoints hear of it by this, while it still answers.
            wait_until(lambda: probe(ending, "readinessProbe") != 200, "it says that it goes")
            wait_until(lambda: not state(ending)["Running"], "it ends")
        assert load.lost == []
        assert set(load.statuses) == {200}, load
        assert state(ending)["ExitCode"] == 0, docker("logs", ending)
        assert not state(ending)["OOMKilled"]


def test_it_stops_within_the_grace_period(container: str) -> None:
    started = time.monotonic()
    docker("stop", "--time", str(POD["terminationGracePeriodSeconds"]), container)
    assert time.monotonic() - started < POD["terminationGracePeriodSeconds"]
    assert state(container)["ExitCode"] == 0


def test_the_worst_input_stays_within_the_memory_of_a_worker() -> None:
    with pod(memory=f"{WORKER_BYTES}b", access_log=False) as attacked:
        wait_until_ready(attacked)
        port, processes = port_of(attacked), docker("top", attacked, "-o", "pid")
        for name, (sent, statuses) in costly.as_requests().items():
            assert exchange(port, sent).status in statuses, name
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            seen = other.submit(costly.attack, port, 10).result()
        print(f"at most {accounted(attacked, PEAK)} bytes; {seen}")
        assert re.search(r"^oom_kill 0$", accounted(attacked, EVENTS), re.MULTILINE), docker(
            "logs", attacked
        )
        assert docker("top", attacked, "-o", "pid") == processes  # none was replaced
        assert probe(attacked, "livenessProbe") == probe(attacked, "readinessProbe") == 200
        assert ask(port, "POST", "/predict", b'{"x": [0.5]}')[0] == 200
