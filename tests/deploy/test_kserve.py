"""The InferenceService against KServe's own models: every field is one of theirs, of its type."""

import re
from pathlib import Path
from typing import Any

import pytest

kserve = pytest.importorskip("kserve", reason="KServe is not installed; make test-deploy has it")
import yaml  # noqa: E402
from kubernetes import client  # noqa: E402

MANIFEST = Path(__file__).parents[2] / "deploy" / "kserve" / "inference-service.yaml"
PLAIN = {"str": str, "int": int, "bool": bool, "float": float}


def check(value: Any, kind: str, where: str) -> None:
    """Fail unless ``value`` is what the models call ``kind``, whose classes know every field."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            check(item, found[1], f"{where}[{index}]")
    elif found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        assert isinstance(value, dict), where
        for key, item in value.items():
            check(item, found[1], f"{where}.{key}")
    elif kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), f"{where}: {value!r} is not {kind}"
    elif model := getattr(kserve, kind, None) or getattr(client, kind, None):
        assert isinstance(value, dict), where
        fields = {theirs: ours for ours, theirs in model.attribute_map.items()}
        for key, item in value.items():
            assert key in fields, f"{where}: KServe knows no {key}"
            check(item, model.openapi_types[fields[key]], f"{where}.{key}")
        model(**{fields[key]: item for key, item in value.items()})  # what is required is there


def test_every_field_is_one_of_kserves() -> None:
    document = yaml.safe_load(MANIFEST.read_text("utf-8"))
    check(document, "V1beta1InferenceService", "inference-service.yaml")


@pytest.mark.parametrize(
    ("good", "wrong", "said"),
    [
        ("minReplicas: 1", "minReplica: 1", "knows no minReplica"),
        ("minReplicas: 1", "minReplicas: one", "is not int"),
        ("readOnlyRootFilesystem:", "readOnlyRootFileSystem:", "readOnlyRootFileSystem"),
        ("mountPath: /tmp", "mountpath: /tmp", "mountpath"),
    ],
)
def test_a_wrong_field_is_found(good: str, wrong: str, said: str) -> None:
    text = MANIFEST.read_text("utf-8")
    assert good in text
    with pytest.raises((AssertionError, ValueError), match=said):
        check(yaml.safe_load(text.replace(good, wrong)), "V1beta1InferenceService", "file")
