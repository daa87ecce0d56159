"""A graph is loaded by every ONNX Runtime that pyproject.toml allows."""

import onnxruntime
import pytest

from service.runtime.session import _loaded


def test_a_fusion_without_a_kernel_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime 1.23 fails on float64 products with a transpose, and newer ones don't."""
    asked = []

    def session(content, options, *, providers, disabled_optimizers=()):
        asked.append(list(disabled_optimizers))
        if not disabled_optimizers:
            raise RuntimeError("Failed to find kernel for com.microsoft.FusedMatMul(1)")
        return "loaded"

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    options = onnxruntime.SessionOptions()
    assert _loaded(b"", options, ("CPUExecutionProvider",)) == "loaded"
    assert asked == [[], ["MatmulTransposeFusion"]]


def test_other_failures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def session(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find kernel for Conv(11)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(RuntimeError, match="Conv"):
        _loaded(b"", onnxruntime.SessionOptions(), ())
