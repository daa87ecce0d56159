"""gradserve on Ray Serve: replicas over many machines, scaled by load.

``serve run service.ray_serve:app`` runs it with the defaults below; ``deploy/ray_serve.yaml`` is a
configuration for ``serve deploy``, which changes them without a restart of the cluster. Needs the
extra ``ray``. Settings are the ``GRADSERVE_…`` variables of each replica's own environment.
"""

from typing import Any

from ray import serve

from service import ray_replica


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    # A replica works on one graph at a time: more than a few waiting ones are better elsewhere.
    max_ongoing_requests=64,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 5,
        "downscale_delay_s": 60,
    },
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=15,
)
@serve.ingress(ray_replica.build)
class Gradserve:
    """One replica. All of its requests go to the application that ``build`` makes."""

    def check_health(self) -> None:
        """Raise unless every expected model is loaded; Ray then replaces the replica."""
        ray_replica.check_health()


app: Any = Gradserve.bind()  # type: ignore[attr-defined]
