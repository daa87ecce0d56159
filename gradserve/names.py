"""Other people's ``service``, ``training`` or ``contract``: told apart from ours, in one line."""

import importlib.util
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PACKAGES = ("contract", "service", "training")


class NameClash(ImportError):
    """Another package of the same name comes first on Python's path."""


def require_own() -> None:
    """Raises NameClash if one of gradserve's packages would be imported from somewhere else."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec else []
        if [Path(place).resolve() for place in places] != [HOME / name]:
            found = places[0] if places else spec.origin if spec else "none"
            raise NameClash(
                f"gradserve has a package called {name}, but Python finds {found} "
                f"first; rename that one, or publish with the command `gradserve publish`, which "
                "doesn't import it"
            )
