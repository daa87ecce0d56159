"""What the runtime tells whoever counts: ``service.web.metrics`` implements it for Prometheus."""


class Observer:
    """Is told what happens. This one takes no notice; subclasses override what they count."""

    def places_taken(self, taken: int) -> None:
        """So many places of the queue are taken now."""

    def version_in_service(self, model: str, version: int) -> None:
        """``version`` of ``model`` answers requests now; 0 means none."""

    def readiness(self, ready: bool) -> None:
        """Whether every expected model is loaded."""

    def models(self, serving: int, refused: dict[str, int]) -> None:
        """So many models serve now, and so many versions of each model were refused."""

    def ran(self, model: str, version: int, rows: int, graphs: int, seconds: float) -> None:
        """Rows of the current request took ``seconds`` in so many graphs, waiting included."""

    def waited(self, seconds: float, *, for_graph: bool) -> None:
        """The current request waited so long for its turn: to run a graph, or for other work."""

    def folder_readable(self, readable: bool) -> None:
        """Whether the artifacts folder is there, readable and holds artifacts."""

    def store_seen(self, reached: bool, succeeded: float, refused: int) -> None:
        """The last look at the object store; when one last succeeded, s since the epoch.

        ``refused`` versions of it could not be copied.
        """
