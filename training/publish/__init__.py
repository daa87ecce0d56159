"""From a trained network to the files of an artifact: derivatives, ONNX graphs, counts, report."""
