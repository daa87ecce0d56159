"""gradserve on a local Ray cluster of two nodes: requests, hot swap, losses under load, scaling.

Needs Ray; ``make test-deploy`` has it in an environment of its own. Slow: about three minutes.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ray = pytest.importorskip("ray", reason="Ray is not installed here; make test-deploy has it")
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.serve.config import AutoscalingConfig  # noqa: E402
from ray.serve.schema import (  # noqa: E402
    DeploymentSchema,
    HTTPOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from service.ray_replica import LABELS  # noqa: E402
from service.web.metrics import REQUESTS  # noqa: E402

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 90


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ray") / "artifacts"
    shutil.copytree(ROOT / "artifacts" / "curve-mlp", root / "curve-mlp")
    return root


@pytest.fixture(scope="module")
def cluster(artifacts: Path) -> Iterator[Any]:
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["GRADSERVE_ARTIFACTS"] = str(artifacts)
    os.environ["GRADSERVE_ACCESS_LOG"] = "false"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    made.second = made.add_node(num_cpus=3)
    ray.init(address=made.address, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": free_port()})
    yield made
    serve.shutdown()
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def port(cluster: Any) -> int:
    run(replicas=2)
    return int(serve.status().proxies and _port[0])


_port: list[int] = []


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        _port.append(free.getsockname()[1])
    return _port[-1]


def run(**options: Any) -> None:
    """Deploy with so many replicas, or with autoscaling, and wait until they are healthy.

    ``settings`` are variables of the replicas.
    """
    from service.ray_serve import Gradserve

    if "replicas" in options:
        settings = {"runtime_env": {"env_vars": options.get("settings", {})}}
        changed = Gradserve.options(
            num_replicas=options["replicas"],
            autoscaling_config=None,
            max_ongoing_requests=64,
            ray_actor_options={"num_cpus": 1, **settings},
        )
    else:
        changed = Gradserve.options(autoscaling_config=options)
    serve.run(changed.bind(), name="gradserve", route_prefix="/")


def replicas() -> int:
    """How many run."""
    deployment = serve.status().applications["gradserve"].deployments["Gradserve"]
    return int(deployment.replica_states.get("RUNNING", 0))


def wait_for(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - started


def predict(port: int) -> tuple[int, dict[str, Any], http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": "application/json", "x-request-id": "mine-1"}
    connection.request("POST", "/gradient", b'{"x": [0.1, 3.0]}', headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if answer.status == 200 else {}, answer


class Load:
    """Four clients that ask all the time; counts answers and failures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.good = 0
        self.failed = 0
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                good = predict(self.port)[0] == 200
            except (OSError, http.client.HTTPException):
                good = False
            self.good += good
            self.failed += not good
            time.sleep(0.01)


def test_the_configuration_names_what_ray_builds(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "ray_serve.yaml").read_text("utf-8"))
    ServeDeploySchema(**document)
    (ours,) = document["applications"]
    # Ray passes over fields that it doesn't know.
    assert document.keys() <= ServeDeploySchema.model_fields.keys()
    assert document["http_options"].keys() <= HTTPOptionsSchema.model_fields.keys()
    assert ours.keys() <= ServeApplicationSchema.model_fields.keys()
    for each in ours["deployments"]:
        assert each.keys() <= DeploymentSchema.model_fields.keys()
        assert each["autoscaling_config"].keys() <= AutoscalingConfig.model_fields.keys()
    command = [Path(sys.executable).with_name("serve"), "build", ours["import_path"]]
    subprocess.run(
        [*command, "--output-path", tmp_path / "built.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
    (built,) = yaml.safe_load((tmp_path / "built.yaml").read_text("utf-8"))["applications"]
    assert built["import_path"] == ours["import_path"]
    assert [each["name"] for each in built["deployments"]] == ["Gradserve"]
    assert [each["name"] for each in ours["deployments"]] == ["Gradserve"]


def test_the_checkouts_name_is_the_packages() -> None:
    import deploy.ray_serve
    import service.ray_serve

    assert deploy.ray_serve.app is service.ray_serve.app


def test_it_answers_and_sets_the_request_id_once(port: int) -> None:
    for _ in range(10):
        status, answer, response = predict(port)
        assert status == 200
        assert answer["model"] == "curve-mlp"
        assert response.msg.get_all("x-request-id") == ["mine-1"]


def counted() -> Counter[tuple[str, ...]]:
    """How many requests for f′ Ray has counted on all nodes, by the service's labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        for line in lines:
            assert not line.startswith("http_requests_total"), "the service's own is there as well"
            if line.startswith("ray_http_requests_total{") and 'handler="/gradient"' in line:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                found[tuple(labels[name] for name in LABELS)] += round(
                    float(line.rpartition(" ")[2])
                )
    return found


def settled() -> Counter[tuple[str, ...]]:
    """What is counted once nothing is added for 25 s: Ray collects every ten seconds."""
    before, since = counted(), time.monotonic()
    while time.monotonic() - since < 25:
        time.sleep(1)
        now = counted()
        if now != before:
            before, since = now, time.monotonic()
    return before


def test_ray_counts_each_request_once_by_the_services_labels(port: int) -> None:
    assert REQUESTS._labelnames == LABELS
    version = str(predict(port)[1]["version"])
    one = ("/gradient", "POST", "200", "curve-mlp", version)
    wait_for(lambda: counted()[one] > 0, "Ray has counted one")
    first = settled()
    for _ in range(40):
        assert predict(port)[0] == 200
    wait_for(lambda: counted()[one] >= first[one] + 40, "Ray has counted them")
    assert settled() - first == Counter({one: 40})


def test_a_new_version_serves_on_all_replicas_within_ten_seconds(
    port: int, artifacts: Path
) -> None:
    folder = artifacts / "curve-mlp"
    old = max(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    draft = folder / ".draft-test"
    shutil.copytree(folder / str(old), draft)
    manifest = json.loads((draft / "manifest.json").read_text())
    manifest["version"] = old + 1
    (draft / "manifest.json").write_text(json.dumps(manifest))
    draft.rename(folder / str(old + 1))

    def swapped() -> bool:
        return {predict(port)[1]["version"] for _ in range(12)} == {old + 1}

    wait_for(swapped, "the new version serves everywhere", 10)


def test_a_rolling_update_costs_no_request(port: int) -> None:
    """Replicas with other settings take over one by one; no client notices."""
    before = set(replica_processes())
    with Load(port) as load:
        wait_for(lambda: load.good > 50, "there is load")
        run(replicas=2, settings={"GRADSERVE_MAX_X": "1000"})
        wait_for(lambda: not before & set(replica_processes()), "the old replicas are gone")
        good = load.good
        wait_for(lambda: load.good > good + 50, "requests are answered")
    print(f"a rolling update: {load.failed} of {load.good + load.failed} requests failed")
    assert load.failed == 0


def test_a_killed_replica_costs_only_what_it_was_answering(port: int) -> None:
    with Load(port) as load:
        wait_for(lambda: load.good > 50, "there is load")
        os.kill(replica_processes()[0], signal.SIGKILL)
        time.sleep(1)
        wait_for(lambda: replicas() == 2, "the replica has been replaced")
        time.sleep(2)
    assert load.failed <= 4 + 4, f"{load.failed} of {load.good + load.failed} failed"


def test_a_lost_node_is_made_up_for(port: int, cluster: Any) -> None:
    third = cluster.add_node(num_cpus=3)
    with Load(port) as load:
        wait_for(lambda: load.good > 50, "there is load")
        cluster.remove_node(cluster.second, allow_graceful=False)
        # Serve says that its replicas run until the cluster has missed the node.
        wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, "the node is missed")
        wait_for(lambda: replicas() == 2, "its replicas run elsewhere")
        good = load.good
        wait_for(lambda: load.good > good + 50, "requests are answered")
        before, good = load.failed, load.good
        wait_for(lambda: load.good > good + 200, "requests are answered")
        assert load.failed - before <= 1
    cluster.second = third
    print(f"a lost node: {load.failed} of {load.good + load.failed} requests failed")


def test_it_scales_up_with_load_and_down_without(port: int) -> None:
    run(
        min_replicas=1,
        max_replicas=3,
        target_ongoing_requests=0.5,
        upscale_delay_s=1,
        downscale_delay_s=3,
        look_back_period_s=2,
        metrics_interval_s=1,
    )
    wait_for(lambda: replicas() == 1, "it starts with one replica")
    with Load(port), Load(port):
        wait_for(lambda: replicas() == 3, "three under load")
    wait_for(lambda: replicas() == 1, "one without load")
    assert predict(port)[0] == 200


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An empty bucket of moto's server; the variables by which it is reached."""
    moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{address}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="models")
    yield environment
    server.stop()


def test_replicas_take_their_artifacts_from_an_object_store(
    port: int, store: dict[str, str], tmp_path: Path
) -> None:
    from contract.remote import Remote, open_draft
    from contract.store import read_manifest
    from service.ray_serve import Gradserve

    def put() -> int:
        folder = max((ROOT / "artifacts" / "curve-mlp").glob("[0-9]*"))
        with open_draft(Remote("s3://models/live"), "curve-mlp") as draft:
            for path in folder.iterdir():
                if path.name != "manifest.json":
                    shutil.copyfile(path, draft.folder / path.name)
            return draft.publish(read_manifest(folder)).manifest.version

    assert put() == 1
    environment = {
        **store,
        "GRADSERVE_ARTIFACTS": "s3://models/live",
        "GRADSERVE_CACHE": str(tmp_path / "cache"),
        "GRADSERVE_STORE_SECONDS": "0.5",
    }
    changed = Gradserve.options(
        num_replicas=2,
        autoscaling_config=None,
        ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": environment}},
    )
    serve.run(changed.bind(), name="gradserve", route_prefix="/")

    def serving(version: int) -> bool:
        return {predict(port)[1].get("version") for _ in range(12)} == {version}

    wait_for(lambda: replicas() == 2 and serving(1), "the first version serves everywhere")
    assert put() == 2
    wait_for(lambda: serving(2), "the new version serves everywhere")
    assert (tmp_path / "cache").is_dir()


def replica_processes() -> list[int]:
    """Process ids of the replicas on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ServeReplica:gradserve:Gradserve" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
