"""The Kubernetes manifests, checked offline: by Kubernetes' own schemas, and against each other."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed here; make test-deploy has it")

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
OBJECT_STORE = DEPLOY / "kubernetes" / "object-store"
# Custom resources: Kubernetes' own schemas don't know them, and are checked by hand below.
CUSTOM = {"ServiceMonitor", "InferenceService", "Kustomization"}
VERSIONS = ("1.30", "1.34")


def documents(folder: Path) -> dict[str, Any]:
    """Every manifest of a folder, by kind."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            found[document["kind"]] = document
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_own_schemas_accept_them(version: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate",
        reason="kubernetes-validate is not installed; make test-deploy has it",
    )
    checked = 0
    for document in documents(BASE).values():
        if document["kind"] not in CUSTOM:
            validate.validate(document, version, strict=True)
            checked += 1
    assert checked >= 6


def test_what_belongs_together_has_the_same_labels() -> None:
    found = documents(BASE)
    deployment = found["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    monitor = found["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == found["Service"]["metadata"]["labels"]
    ports = {port["name"] for port in found["Service"]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= ports
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "gradserve"
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(
        path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml"
    )


def test_the_service_monitor_has_fields_that_the_operator_knows() -> None:
    """Of monitoring.coreos.com/v1; one that it doesn't know it leaves out in silence."""
    monitor = documents(BASE)["ServiceMonitor"]
    assert monitor.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    spec = monitor["spec"]
    assert spec.keys() <= {"selector", "endpoints", "jobLabel", "namespaceSelector", "targetLabels"}
    assert spec["selector"].keys() <= {"matchLabels", "matchExpressions"}
    for endpoint in spec["endpoints"]:
        known = {"port", "path", "scheme", "interval", "scrapeTimeout", "authorization"}
        assert endpoint.keys() <= known
        assert re.fullmatch(r"[1-9][0-9]*(ms|s|m|h)", endpoint["interval"])


def test_a_pod_has_time_to_drain() -> None:
    from service.settings import Settings

    spec = documents(BASE)["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    fields = Settings.model_fields
    drain = fields["drain_delay_seconds"].default + fields["drain_seconds"].default
    assert spec["terminationGracePeriodSeconds"] >= pause + drain + 5
    assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize("name", ["base/deployment.yaml", "../kserve/inference-service.yaml"])
def test_containers_are_confined(name: str) -> None:
    document = yaml.safe_load((DEPLOY / "kubernetes" / name).read_text())
    spec = (
        document["spec"]["template"]["spec"]
        if "template" in document["spec"]
        else document["spec"]["predictor"]
    )
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_settings_that_manifests_name_exist() -> None:
    from service.settings import Settings

    known = {f"GRADSERVE_{name.upper()}" for name in Settings.model_fields}
    named = {
        found
        for path in [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")]
        for found in re.findall(
            r"name: (GRADSERVE_[A-Z_]+)|^ *(GRADSERVE_[A-Z_]+):", path.read_text()
        )
        for found in found
        if found
    }
    assert named
    assert named <= known


def test_the_overlay_changes_what_the_base_has() -> None:
    base, overlay = documents(BASE), documents(OBJECT_STORE)
    for kind in ("Deployment", "NetworkPolicy"):
        assert overlay[kind]["metadata"]["name"] == base[kind]["metadata"]["name"]
    theirs, ours = (each["Deployment"]["spec"]["template"]["spec"] for each in (base, overlay))
    gone = [volume["name"] for volume in ours["volumes"] if "$patch" in volume]
    assert gone == ["artifacts"]
    assert set(gone) <= {volume["name"] for volume in theirs["volumes"]}
    (container,), (before,) = ours["containers"], theirs["containers"]
    assert container["name"] == before["name"]
    removed = [m["mountPath"] for m in container["volumeMounts"] if "$patch" in m]
    assert removed == [m["mountPath"] for m in before["volumeMounts"] if m["name"] in gone]
    environment = {each["name"]: each["value"] for each in container["env"]}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"] if "name" in m}
    assert mounts[environment["GRADSERVE_CACHE"]] == "cache"
    assert environment["GRADSERVE_ARTIFACTS"].startswith("s3://")


def rendered(folder: Path) -> dict[str, Any]:
    """Every manifest that a kustomization makes, by kind; skips where nothing can render it."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build", str(folder)]
    elif shutil.which("kubectl") and _kubectl_version() >= (1, 21):
        command = ["kubectl", "kustomize", str(folder)]
    else:
        pytest.skip("NOT RENDERED: there is no kustomize here, and no kubectl of 1.21 or newer")
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [BASE, OBJECT_STORE], ids=lambda folder: folder.name)
def test_what_is_rendered_is_accepted_by_kubernetes_own_schemas(folder: Path, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    found = rendered(folder)
    assert found.keys() == documents(BASE).keys() - {"Kustomization"}
    for kind, document in found.items():
        if kind not in CUSTOM:
            validate.validate(document, version, strict=True)
        name = document["metadata"]["name" if kind == "Namespace" else "namespace"]
        assert name == "gradserve", kind


def test_the_schemas_refuse_what_is_misspelt() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    deployment = documents(BASE)["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize("folder", [BASE, OBJECT_STORE], ids=lambda folder: folder.name)
def test_probes_requests_and_scrapes_reach_the_port_that_is_listened_on(folder: Path) -> None:
    found = rendered(folder)
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    arguments = container["args"]
    port = int(arguments[arguments.index("--port") + 1])
    assert arguments[arguments.index("--host") + 1] == "0.0.0.0"
    named = {each["name"]: each["containerPort"] for each in container["ports"]}
    known = json.loads((DEPLOY.parent / "tests/service/openapi.json").read_text("utf-8"))["paths"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert named[asked["port"]] == port
        assert asked["path"] in known
    targets = {each["name"]: each["targetPort"] for each in found["Service"]["spec"]["ports"]}
    assert {named[target] for target in targets.values()} == {port}
    (scraped,) = found["ServiceMonitor"]["spec"]["endpoints"]
    assert named[targets[scraped["port"]]] == port
    assert scraped["path"] in known
    # From anywhere: who calls, and Prometheus, are in namespaces that this can't know.
    policy = found["NetworkPolicy"]["spec"]
    assert policy["ingress"] == [{"ports": [{"port": port, "protocol": "TCP"}]}]


def test_what_may_go_out() -> None:
    for folder, expected in (
        (BASE, set()),
        (OBJECT_STORE, {(53, "UDP"), (53, "TCP"), (443, "TCP")}),
    ):
        policy = rendered(folder)["NetworkPolicy"]["spec"]
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
        assert {
            (p["port"], p["protocol"]) for r in policy["egress"] for p in r["ports"]
        } == expected


def _kubectl_version() -> tuple[int, int]:
    text = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r'"major": "(\d+)",\s*"minor": "(\d+)', text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@pytest.mark.parametrize(
    "name", ["docker-compose.yml", "deploy/compose-api.yml", "deploy/compose-proxy.yml"]
)
def test_compose_files_are_of_the_specification_of_compose_2(name: str) -> None:
    compose_spec = pytest.importorskip("compose_spec")
    text = (DEPLOY.parent / name).read_text("utf-8")
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    assert "${" not in filled
    document = yaml.safe_load(filled)
    for service in document["services"].values():
        if "cpus" in service:
            service["cpus"] = float(service["cpus"])  # the specification takes 2, this package 2.0
    compose_spec.PyCompose.from_json(json.dumps(document))
    next(iter(document["services"].values()))["memlimit"] = "1g"
    with pytest.raises(ValueError, match="memlimit"):
        compose_spec.PyCompose.from_json(json.dumps(document))
