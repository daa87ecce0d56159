"""What the runtime tells whoever counts: ``service.web.metrics`` implements it for Prometheus."""


class Observer:
    """Is told what happens. This one takes no notice; subclasses override what they count."""

    def places_taken(self, taken: int) -> None:
        """So many places of the queue are taken now."""

    def version_in_service(self, model: str, version: int) -> None:
        """``version`` of ``model`` answers requests now; 0 means none."""

    def readiness(self, ready: bool) -> None:
        """Whether every expected model is loaded."""
