"""The dashboard's every query has data, in the real Prometheus, from two workers under load."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deploy.monitoring.make_dashboard import TARGET, dashboard
from tests.server_process import CLIENTS, ROOT, ServerProcess
from tests.tiny_artifacts import png, publish_all

SECONDS = 60  # for Prometheus to have scraped often enough for a rate


def test_the_dashboard_is_the_one_that_is_described() -> None:
    assert json.loads(TARGET.read_text()) == dashboard()


def with_a_refused_version(tmp_path: Path) -> Path:
    """Artifacts of every kind, and one that is refused."""
    root = tmp_path / "artifacts"
    publish_all(root)
    refused = root / "curve-mlp" / "2"
    refused.mkdir()
    (refused / "manifest.json").write_text("{}")
    return root


def queries() -> list[str]:
    """Every query of the dashboard as it is published."""
    panels = json.loads(TARGET.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_of_the_dashboard_is_one_of_ours(tmp_path: Path) -> None:
    root = with_a_refused_version(tmp_path)
    with ServerProcess(root).wait_ready() as server:
        server.post("/gradient", {"x": [1, 2]})
        server.post("/predict", {"x": "bad"})
        server.classify(png((200, 30, 30)))
        text = server.request("GET", "/metrics")[1].decode()
    exposed = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    exposed |= set(re.findall(r"^(\w+)(?:\{| )", text, re.M))
    for query in queries():
        named = set(re.findall(r"\b(?:http|gradserve|nv|process|go|up)_\w+", query))
        assert named, query
        assert named <= exposed, query


def test_the_dashboard_is_of_the_type_that_grafana_publishes(tmp_path: Path) -> None:
    modules = CLIENTS / "typescript" / "node_modules"
    if not (modules / "@grafana" / "schema").exists():
        pytest.skip("@grafana/schema is not installed here: make test-clients installs it")
    version = json.loads((modules / "@grafana" / "schema" / "package.json").read_text())["version"]
    assert f"grafana/grafana:{version}}}" in (ROOT / "docker-compose.yml").read_text()
    (tmp_path / "node_modules").symlink_to(modules)
    assert not type_errors(dashboard(), tmp_path)
    misspelt = dashboard()
    misspelt["panels"][0]["gridPos"]["width"] = 8
    assert "'\"width\"' does not exist in type 'GridPos'" in type_errors(misspelt, tmp_path)


def type_errors(document: dict[str, Any], folder: Path) -> str:
    """What TypeScript says of a dashboard, a literal of which no member may be unknown."""
    program = folder / "dashboard.ts"
    program.write_text(
        'import type { Dashboard } from "@grafana/schema";\n'
        f"export const dashboard: Dashboard = {json.dumps(document)};\n"
    )
    options = ["--strict", "--noEmit", "--skipLibCheck", "--module", "nodenext"]
    compiler = folder / "node_modules" / ".bin" / "tsc"
    command = [compiler, *options, "--target", "es2022", program.name]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == (2 if done.stdout else 0), done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ["promtool", "check", "rules", file]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed: apt-get install prometheus",
)
def test_every_query_of_the_dashboard_has_data(tmp_path: Path) -> None:
    root = with_a_refused_version(tmp_path)
    with ServerProcess(root, workers=2).wait_ready() as server:
        configuration = tmp_path / "prometheus.yml"
        configuration.write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: gradserve\n"
            f'    static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]\n'
        )
        done = threading.Event()
        load = threading.Thread(target=keep_asking, args=(server, done))
        load.start()
        try:
            wait_for_data(configuration, queries())
        finally:
            done.set()
            load.join()


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed: apt-get install prometheus",
)
def test_prometheus_sends_a_key_as_documented(tmp_path: Path) -> None:
    publish_all(tmp_path / "artifacts")
    key = tmp_path / "keys"
    key.write_text("a-key-of-sixteen-characters\n")
    text = (ROOT / "docs" / "deploying.md").read_text().partition("Prometheus sends a key")[2]
    documented = text.partition("```yaml\n")[2].partition("```")[0]
    with ServerProcess(tmp_path / "artifacts", api_key_file=key) as server:
        server.wait_listening()
        documented = documented.replace("/etc/prometheus/gradserve-key", str(key))
        documented = documented.replace("gradserve:8000", f"127.0.0.1:{server.port}")
        configuration = tmp_path / "prometheus.yml"
        configuration.write_text("global: {scrape_interval: 1s}\n" + documented)
        wait_for_data(configuration, ['up{job="gradserve"} == 1', "gradserve_ready"])


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed: apt-get install prometheus",
)
@pytest.mark.parametrize("keys", [False, True])
def test_what_compose_starts_prometheus_with_works(tmp_path: Path, keys: bool) -> None:
    publish_all(tmp_path / "artifacts")
    key = tmp_path / "keys"
    key.write_text("a-key-of-sixteen-characters\n")
    settings = {"api_key_file": key} if keys else {}
    with ServerProcess(tmp_path / "artifacts", **settings) as server:
        server.wait_listening()
        text = (ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text()
        for there, here in (
            ("/run/secrets/gradserve_key", str(key if keys else ROOT / "deploy" / "no-api-keys")),
            ("api:8000", f"127.0.0.1:{server.port}"),
            ("scrape_interval: 15s", "scrape_interval: 1s"),
        ):
            assert there in text
            text = text.replace(there, here)
        configuration = tmp_path / "prometheus.yml"
        configuration.write_text(text)
        wait_for_data(configuration, ['up{job="gradserve"} == 1', "gradserve_ready"])


def wait_for_data(configuration: Path, wanted: list[str]) -> None:
    """Run Prometheus until every query has data."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={configuration.parent / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while lacking := [query for query in wanted if not has_data(port, query)]:
            assert time.monotonic() < deadline, f"no data for {lacking}"
            time.sleep(1)
    finally:
        process.terminate()
        process.wait()


def keep_asking(server: ServerProcess, done: threading.Event) -> None:
    """Requests of several kinds, some of them refused, a few at a time."""
    image = png((200, 30, 30))
    while not done.is_set():
        for _ in range(10):
            server.post("/gradient", {"x": [1, 2]})
        server.post("/predict", {"x": "bad"})
        server.classify(image)
        time.sleep(0.1)


def has_data(port: int, query: str) -> bool:
    """Does Prometheus answer a query with at least one number?"""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:  # it has not begun to listen
        return False
    return any(entry["value"][1] != "NaN" for entry in result)
