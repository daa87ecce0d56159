"""Artifacts in an object store that speaks S3: moto's server, with what may befall a real one.

Needs s3fs and moto; ``make test-deploy`` has them in an environment of its own.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

moto = pytest.importorskip("moto", reason="moto is not installed here; make test-deploy has it")
pytest.importorskip("s3fs", reason="s3fs is not installed here; make test-deploy has it")
import boto3  # noqa: E402
from moto.core import DEFAULT_ACCOUNT_ID  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    create_backend_app,
)
from moto.s3.models import s3_backends  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402

from contract.errors import HashMismatch, StoreUnavailable  # noqa: E402
from contract.remote import CLAIM, Remote, on_this_machine, open_draft  # noqa: E402
from contract.store import list_versions, newest_good, read_manifest  # noqa: E402
from service.runtime.mirror import Mirror, Options  # noqa: E402
from tests.server_process import ServerProcess  # noqa: E402
from tests.tiny_artifacts import publish_curve  # noqa: E402

ROOT = Path(__file__).parents[2]
POLICY_TOOLS = ROOT / ".venv" / "deploy-policy"
S3_IMAGE = os.environ.get("GRADSERVE_TEST_S3_IMAGE", "")
MODEL = "curve-mlp"
BUCKET = "models"
ADDRESS = f"s3://{BUCKET}/live"
REQUESTS_A_LISTING = 1000  # files that one request lists, at most


class Store:
    """moto's server in this process, which can be told to fail; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = False
        self.cut_after: int | None = None  # bytes of answers until it goes down
        backend = DomainDispatcherApplication(create_backend_app)

        def application(environment: dict[str, Any], start: Any) -> Any:
            wire = environment["werkzeug.socket"]
            if self.down:
                _drop(wire)
            query = environment.get("QUERY_STRING", "")
            self.asked.append(f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}?{query}")
            return self._cut(backend(environment, start), wire)

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                pass

        self._server = make_server("127.0.0.1", 0, application, True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _cut(self, blocks: Any, wire: socket.socket) -> Iterator[bytes]:
        for block in blocks:
            for start in range(0, len(block), 1024):
                if self.cut_after is not None:
                    self.cut_after -= 1024
                    if self.cut_after < 0:
                        self.down = True
                if self.down:
                    _drop(wire)
                yield block[start : start + 1024]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


def _drop(wire: socket.socket) -> None:
    """Close a connection in the middle of whatever is being answered."""
    wire.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    import fsspec

    made = Store()
    for name, value in {
        "AWS_ENDPOINT_URL": made.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    urllib.request.urlopen(f"{made.url}/moto-api/reset", b"")
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield made
    made.down = False
    fsspec.filesystem("s3").clear_instance_cache()
    made.close()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder with one version, to put into the store."""
    root = tmp_path / "local"
    publish_curve(root, offset=1.0)
    return root


def require_credentials(store: Store, after: str) -> None:
    """From so many requests on, moto asks whether it knows the key."""
    request = urllib.request.Request(f"{store.url}/moto-api/reset-auth", after.encode())
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request)


def put(local: Path, model: str = MODEL) -> int:
    """Put the version of ``local`` into the store as the next one."""
    folder = local / MODEL / "1"
    with open_draft(Remote(ADDRESS), model) as draft:
        for path in folder.iterdir():
            if path.name != "manifest.json":
                shutil.copyfile(path, draft.folder / path.name)
        return draft.publish(read_manifest(folder)).manifest.version


def mirror(tmp_path: Path, keep: int = 2) -> Mirror:
    (tmp_path / "cache").mkdir(exist_ok=True)
    return Mirror(Options(ADDRESS, str(tmp_path / "cache"), keep, {}, 0.1))


def test_what_was_published_is_copied(store: Store, local: Path, tmp_path: Path) -> None:
    assert [put(local), put(local)] == [1, 2]
    assert mirror(tmp_path).look().trouble == ""
    found, refused = newest_good(tmp_path / "cache", MODEL)
    assert found.manifest.version == 2
    assert refused == []


def test_the_manifest_is_put_last_and_only_if_there_is_none(store: Store, local: Path) -> None:
    put(local)
    written = [line.split("?")[0] for line in store.asked if line.startswith(("PUT", "POST"))]
    place = f"/{BUCKET}/live/{MODEL}/1"
    assert written[-1] == f"PUT {place}/manifest.json"
    assert next(line for line in written if place in line) == f"PUT {place}/{CLAIM}"


def test_publishers_at_once_never_get_one_number(store: Store, local: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(lambda _: put(local), range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert all(stored.complete for stored in Remote(ADDRESS).look()[MODEL].values())


def test_half_an_upload_is_no_version(store: Store, local: Path, tmp_path: Path) -> None:
    put(local)
    client = boto3.client("s3")
    store_half = f"live/{MODEL}/2/value.onnx"
    client.put_object(Bucket=BUCKET, Key=store_half, Body=b"half")
    copies = mirror(tmp_path)
    assert copies.look().trouble == ""
    assert list_versions(tmp_path / "cache", MODEL) == [1]
    assert copies.state.refused == {}
    assert put(local) == 3


def test_a_tampered_file_is_not_copied(store: Store, local: Path, tmp_path: Path) -> None:
    put(local)
    put(local)
    client = boto3.client("s3")
    client.put_object(Bucket=BUCKET, Key=f"live/{MODEL}/2/value.onnx", Body=b"evil")
    copies = mirror(tmp_path)
    assert "value.onnx" in copies.look().refused[f"{MODEL}/2"]
    assert list_versions(tmp_path / "cache", MODEL) == [1]
    store.asked.clear()
    copies.look()
    assert not [line for line in store.asked if "value.onnx" in line]  # not read again
    with pytest.raises(HashMismatch):
        Remote(ADDRESS).fetch(MODEL, 2, tmp_path / "other")


def test_the_store_stops_half_way_and_comes_back(store: Store, local: Path, tmp_path: Path) -> None:
    put(local)
    copies = mirror(tmp_path)
    copies.look()
    put(local)
    store.cut_after = 8 * 1024
    state = copies.look()
    assert store.down
    assert state.trouble
    assert list_versions(tmp_path / "cache", MODEL) == [1]
    assert not list((tmp_path / "cache").glob(".fetch-*"))
    store.down, store.cut_after = False, None
    assert copies.look().trouble == ""
    assert list_versions(tmp_path / "cache", MODEL) == [2, 1]
    newest_good(tmp_path / "cache", MODEL)


def test_wrong_credentials_are_said(
    store: Store, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    put(local)
    require_credentials(store, "0")
    try:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
        fsspec.filesystem("s3").clear_instance_cache()
        state = mirror(tmp_path).look()
        assert re.search("Access|credential|key", state.trouble, re.IGNORECASE), state.trouble
        assert "secret" not in state.trouble
        with pytest.raises(StoreUnavailable):
            Remote(ADDRESS).require_writable()
    finally:
        require_credentials(store, "inf")


def test_no_credentials_and_no_bucket_are_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    with pytest.raises(StoreUnavailable, match="bucket"):
        Remote("s3://nothing/there").look()
    with pytest.raises(StoreUnavailable, match="bucket"):
        Remote("s3://nothing/there").require_writable()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(StoreUnavailable, match=r"[Cc]redentials"):
        Remote(ADDRESS).look()


def test_a_thousand_versions_take_one_listing(store: Store, local: Path, tmp_path: Path) -> None:
    put(local)
    names = [path.name for path in (local / MODEL / "1").iterdir()]
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # by requests it takes a minute
    for version in range(2, 1001):
        backend.put_object(BUCKET, f"live/{MODEL}/{version}/manifest.json", b"{}")
    files = len(names) + 1 + 999
    store.asked.clear()
    assert len(Remote(ADDRESS).look()[MODEL]) == 1000
    assert len(store.asked) <= files // REQUESTS_A_LISTING + 1
    assert all("list-type=2" in line for line in store.asked)


def test_a_newest_version_is_copied_for_evaluation(store: Store, local: Path) -> None:
    put(local)
    put(local)
    with on_this_machine(Remote(ADDRESS), MODEL, "not-there") as root:
        assert list_versions(root, MODEL) == [2]


def test_a_service_from_the_store(store: Store, local: Path, tmp_path: Path) -> None:
    """Starts from it, follows it, misses it without harm, and finds it again."""
    put(local)
    with ServerProcess(
        tmp_path / "unused", artifacts=ADDRESS, cache=tmp_path / "caches", workers=2,
        store_seconds=0.5, watch_seconds=0.2,
    ) as server:  # fmt: skip
        server.wait_ready()
        assert server.post("/predict", {"x": 0})[1]["version"] == 1
        put(local)
        server.wait_until(
            lambda: server.post("/predict", {"x": 0})[1]["version"] == 2, "version 2 serves"
        )

        def reached() -> bool:
            text = server.request("GET", "/metrics")[1].decode()
            return "gradserve_store_reached 1.0" in text

        assert reached()
        store.down = True
        server.wait_until(lambda: not reached(), "the store is missed")
        assert server.is_ready()
        assert server.post("/predict", {"x": 0})[1]["version"] == 2
        store.down = False
        server.wait_until(reached, "the store is back")
    assert "Traceback" not in server.log.read_text()


def test_a_start_without_the_store_listens_and_says_why(store: Store, tmp_path: Path) -> None:
    store.down = True
    with ServerProcess(
        tmp_path / "unused", artifacts=ADDRESS, cache=tmp_path / "caches", store_seconds=0.5
    ) as server:
        server.wait_listening()
        server.wait_until(lambda: _status(server) == 503, "it answers", 45)
        body = json.loads(server.request("GET", "/health/ready")[1])
        assert ADDRESS in json.dumps(body)


def _status(server: ServerProcess) -> int:
    try:
        return server.request("GET", "/health/ready", timeout=2)[0]
    except OSError:
        return 0


def documented_policy() -> dict[str, Any]:
    """The bucket policy that docs/deploying.md shows."""
    text = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    policy: dict[str, Any] = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    return policy


def as_user(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Become a user with what the documented policy allows a role.

    moto takes no notice of a bucket policy's principals, so that it becomes the user's own.
    """
    import fsspec

    statements = [
        {name: value for name, value in each.items() if name not in ("Principal", "Condition")}
        for each in documented_policy()["Statement"]
        if each["Effect"] == "Allow" and f":role/{role}" in json.dumps(each["Principal"])
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    client = boto3.client("iam")
    client.create_user(UserName=role)
    client.put_user_policy(UserName=role, PolicyName="documented", PolicyDocument=document)
    key = client.create_access_key(UserName=role)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    fsspec.filesystem("s3").clear_instance_cache()


def test_by_the_documented_policy_the_service_reads_and_cannot_publish(
    store: Store, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(local)
    as_user("gradserve", monkeypatch)
    require_credentials(store, "0")
    try:
        assert mirror(tmp_path).look().trouble == ""
        assert list_versions(tmp_path / "cache", MODEL) == [1]
        with pytest.raises(StoreUnavailable):
            put(local)
        with pytest.raises(StoreUnavailable):
            Remote(ADDRESS).require_writable()
    finally:
        require_credentials(store, "inf")
    assert list(Remote(ADDRESS).look()[MODEL]) == [1]


def test_by_the_documented_policy_the_publisher_publishes(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(local)
    as_user("publisher", monkeypatch)
    require_credentials(store, "0")
    try:
        Remote(ADDRESS).require_writable()
        assert put(local) == 2
    finally:
        require_credentials(store, "inf")


@pytest.mark.skipif(not S3_IMAGE, reason="GRADSERVE_TEST_S3_IMAGE names no image")
def test_the_image_serves_from_the_store(store: Store, local: Path) -> None:
    put(local)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "GRADSERVE_ARTIFACTS": ADDRESS,
        "GRADSERVE_CACHE": "/cache",
        "GRADSERVE_STORE_SECONDS": "0.5",
        "GRADSERVE_OTLP_ENDPOINT": "http://127.0.0.1:9/v1/traces",  # without its packages: no start
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
    }
    words = [word for pair in environment.items() for word in ("--env", "=".join(pair))]
    confined = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/cache:uid=10001", "--cap-drop=ALL"]
    serve = ["gradserve", "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = ["docker", "run", "--detach", "--network=host", *confined, *words, S3_IMAGE, *serve]
    container = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def version() -> int:
        body = urllib.request.Request(f"http://127.0.0.1:{port}/predict", b'{"x": 0}')
        body.add_header("Content-Type", "application/json")
        try:
            return int(json.load(urllib.request.urlopen(body, timeout=10))["version"])
        except OSError:
            return 0

    try:
        for expected in (1, 2):
            deadline = time.monotonic() + 90
            while version() != expected:
                assert time.monotonic() < deadline, f"version {expected} is not served"
                time.sleep(0.2)
            put(local)
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)


def test_the_policy_in_the_document_has_one_writer() -> None:
    policy = documented_policy()
    writers = {
        statement["Principal"]["AWS"]
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow" and "s3:PutObject" in statement["Action"]
    }
    (denied,) = [each for each in policy["Statement"] if each["Effect"] == "Deny"]
    assert len(writers) == 1
    assert denied["Condition"]["ArnNotEquals"]["aws:PrincipalArn"] in writers


SIMULATE = """
import { runSimulation } from "@cloud-copilot/iam-simulate";
let text = "";
for await (const part of process.stdin) text += part;
const found = await runSimulation(JSON.parse(text), {});
console.log(found.overallResult ?? JSON.stringify(found.errors));
"""
ACCOUNT = "111122223333"
ALL_OF_S3 = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}
A_FILE = "arn:aws:s3:::models/live/curve-mlp/1/manifest.json"
THE_BUCKET = "arn:aws:s3:::models"
YES, NOT_ALLOWED, DENIED = "Allowed", "ImplicitlyDenied", "ExplicitlyDenied"


@pytest.mark.skipif(
    not (POLICY_TOOLS / "node_modules").is_dir() or not shutil.which("node"),
    reason="NOT EVALUATED: make test-deploy-object_store needs npm for it",
)
@pytest.mark.parametrize(
    ("who", "action", "resource", "expected"),
    [
        ("publisher", "s3:PutObject", A_FILE, YES),
        ("publisher", "s3:GetObject", A_FILE, YES),
        ("publisher", "s3:ListBucket", THE_BUCKET, YES),
        ("publisher", "s3:DeleteObject", A_FILE, NOT_ALLOWED),
        ("gradserve", "s3:GetObject", A_FILE, YES),
        ("gradserve", "s3:ListBucket", THE_BUCKET, YES),
        ("gradserve", "s3:PutObject", A_FILE, DENIED),
        ("gradserve", "s3:DeleteObject", A_FILE, DENIED),
        # Someone whose own rights are all of S3, as many an administrator's and pipeline's are.
        ("administrator", "s3:PutObject", A_FILE, DENIED),
        ("administrator", "s3:PutObjectAcl", A_FILE, DENIED),
        ("administrator", "s3:DeleteObject", A_FILE, DENIED),
        ("administrator", "s3:DeleteObjectVersion", A_FILE, DENIED),
        ("administrator", "s3:GetObject", A_FILE, YES),
        ("stranger", "s3:GetObject", A_FILE, NOT_ALLOWED),
        ("stranger", "s3:ListBucket", THE_BUCKET, NOT_ALLOWED),
        ("", "s3:PutObject", A_FILE, DENIED),
        ("", "s3:GetObject", A_FILE, NOT_ALLOWED),
    ],
)
def test_what_the_documented_policy_allows_and_denies(
    who: str, action: str, resource: str, expected: str
) -> None:
    """By a simulator of IAM's rules, with principals, conditions and Deny, which moto leaves out.

    ``who`` is a role by whose session is asked, or nobody: a request without a key.
    """
    context = {"s3:prefix": "live/"} if action == "s3:ListBucket" else {}
    principal: object = {"type": "Anonymous"}
    if who:
        principal = f"arn:aws:sts::{ACCOUNT}:assumed-role/{who}/session"
        context["aws:PrincipalArn"] = f"arn:aws:iam::{ACCOUNT}:role/{who}"
    own = [{"name": "own", "policy": ALL_OF_S3}] if who == "administrator" else []
    simulation = {
        "request": {
            "principal": principal,
            "action": action,
            "resource": {"resource": resource, "accountId": ACCOUNT},
            "contextVariables": context,
        },
        "identityPolicies": own,
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
        "resourcePolicy": documented_policy(),
    }
    done = subprocess.run(
        ["node", "--input-type=module", "-e", SIMULATE],
        cwd=POLICY_TOOLS,
        input=json.dumps(simulation),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == expected, done.stdout + done.stderr
