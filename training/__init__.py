"""Trains models with PyTorch, offline, and publishes them as artifacts."""

import os

# ONNX Runtime, which checks the exported graphs here, reports what it runs to its makers unless
# this is set before its first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
