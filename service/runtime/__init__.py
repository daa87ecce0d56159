"""What runs: ONNX Runtime sessions, the verified versions they came from, and what is serving."""
