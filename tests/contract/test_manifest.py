"""The manifest's schema: what it takes, what it refuses, and that it survives JSON."""

import json
from typing import Any

import pytest
from contract_examples import manifest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.manifest import (
    MANIFEST,
    ClassifierManifest,
    CurveManifest,
    FunctionManifest,
    SigmoidConvManifest,
)

HEX = "ab" * 32
OPTIONAL = {"coefficients", "scaled_coefficients", "scaling", "degrees_of_freedom"}  # of a curve


def document(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(manifest().model_dump_json())
    return fields | changes


def refuse(fields: dict[str, Any], *words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MANIFEST.validate_json(json.dumps(fields))
    for word in words:
        assert word in str(caught.value)


def test_json_round_trip_changes_nothing() -> None:
    original = manifest()
    assert MANIFEST.validate_json(original.model_dump_json()) == original


def test_kind_chooses_the_class() -> None:
    curve = document()
    common = {key: value for key, value in curve.items() if key not in {"domain", *OPTIONAL}}
    assert isinstance(MANIFEST.validate_python(curve), CurveManifest)
    classifier = MANIFEST.validate_python(common | {"kind": "classifier", "classes": ["a", "b"]})
    assert isinstance(classifier, ClassifierManifest)
    sigmoid = MANIFEST.validate_python(common | {"kind": "sigmoid-conv"})
    assert isinstance(sigmoid, SigmoidConvManifest)


def test_schema_version_1_stays_readable() -> None:
    assert MANIFEST.validate_python(document(schema_version=1)) == manifest(schema_version=1)


def test_a_function_needs_no_provenance_but_a_value() -> None:
    fields = {
        key: document()[key] for key in ("model", "version", "created_utc", "functions", "files")
    }
    function = MANIFEST.validate_python(fields | {"kind": "function"})
    assert isinstance(function, FunctionManifest)
    assert (function.parameters, function.data, function.training) == (None, None, None)
    renamed = {"gradient": fields["functions"]["value"]}
    refuse(fields | {"kind": "function", "functions": renamed}, "'value'")
    refuse(fields | {"kind": "function", "schema_version": 1}, "schema_version")


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest().version = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"kind": "regressor"}, "kind"),
        ({"kind": "classifier", "classes": ["a", "b"]}, "domain"),
        ({"unknown": 1}, "unknown"),
        ({"version": 0}, "version"),
        ({"version": "one"}, "version"),
        ({"functions": {}}, "functions"),
        ({"model": "Curve"}, "model"),
        ({"model": "../curve"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "a" * 64}, "model"),
        ({"model": "curve\n"}, "model"),
        ({"schema_version": 3}, "schema_version"),
        ({"created_utc": "yesterday"}, "created_utc"),
        ({"domain": [0.0]}, "domain"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], word: str) -> None:
    refuse(document(**changes), word)


@pytest.mark.parametrize("field", [name for name in document() if name not in OPTIONAL])
def test_no_field_can_be_left_out(field: str) -> None:
    fields = document()
    del fields[field]
    if field == "schema_version":  # has a default in Python; the store insists on it in JSON
        assert MANIFEST.validate_python(fields).schema_version == 2
    else:
        refuse(fields, field)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_number_is_nan_or_infinite(number: float) -> None:
    for changes in (
        {"domain": [0.0, number]},
        {"metrics": {"mse": number}},
        {"metrics": {"per_class": [1.0, {"cat": number}]}},
        {"coefficients": [number]},
        {"scaled_coefficients": [number]},
    ):
        refuse(document(**changes), "finite")


def test_totals_must_be_the_sums_of_the_layers() -> None:
    parameters = document()["parameters"]
    refuse(document(parameters=parameters | {"total": 3}), "add up")
    refuse(document(parameters=parameters | {"multiply_adds": 0}), "multiply-adds")


def test_a_function_needs_a_listed_graph() -> None:
    refuse(document(files={"other.onnx": {"sha256": HEX, "bytes": 1}}), "value.onnx")


@pytest.mark.parametrize("digest", ["", "ab", HEX.upper(), HEX + "0", "g" * 64])
def test_a_checksum_is_sixty_four_lower_case_hex_digits(digest: str) -> None:
    refuse(document(files={"value.onnx": {"sha256": digest, "bytes": 1}}), "sha256")


@given(name=st.text(max_size=20))
def test_a_file_name_cannot_leave_its_folder(name: str) -> None:
    """Whatever name is accepted is a single visible path component."""
    files = {"value.onnx": {"sha256": HEX, "bytes": 1}, name: {"sha256": HEX, "bytes": 1}}
    try:
        accepted = MANIFEST.validate_python(document(files=files))
    except ValidationError:
        return
    for file in accepted.files:
        assert file
        assert not file.startswith(".")
        assert not set(file) & set('/\\\0\n:"')
