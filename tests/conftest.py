"""Settings for the whole suite."""

import os
import signal

from hypothesis import settings

# As the packages do: a test may import ONNX Runtime before them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell that starts the suite in the background has SIGINT ignored, and nohup SIGHUP, which every
# process started here would inherit; they are to hear both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The suite shares two cores with whatever else runs: a slow example is no failure.
settings.register_profile("gradserve", deadline=None)
settings.load_profile("gradserve")
