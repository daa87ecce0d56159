"""The checkout's name of the Ray Serve application: ``serve run deploy.ray_serve:app``.

The wheel has no ``deploy/``; there, and here as well, it is ``service.ray_serve:app``.
"""

from service.ray_serve import app

__all__ = ["app"]
