"""Settings for the whole suite."""

from hypothesis import settings

# The suite shares two cores with whatever else runs: a slow example is no failure.
settings.register_profile("gradserve", deadline=None)
settings.load_profile("gradserve")
