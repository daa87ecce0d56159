"""Serves published artifacts over HTTP with ONNX Runtime; needs no PyTorch."""

import os

# ONNX Runtime reports what it runs to its makers unless this is set before its first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
