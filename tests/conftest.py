"""Settings for the whole suite."""

import os

from hypothesis import settings

# As the packages do: a test may import ONNX Runtime before them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The suite shares two cores with whatever else runs: a slow example is no failure.
settings.register_profile("gradserve", deadline=None)
settings.load_profile("gradserve")
