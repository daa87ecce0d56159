"""The service with leaks planted on purpose, to see that the soak run finds them.

``python -m tests.hostile.leaky`` takes the service's own arguments. Of every JSON body some of what
it took is kept, with an open file for each hundredth.
"""

import itertools
import os
import sys
from typing import Any

from service import __main__ as entrance

KEPT_BYTES = 50_000

kept: list[Any] = []
number = itertools.count()


def plant() -> None:
    """Replace the reading of JSON bodies by one that leaks."""
    from service.api import curve
    from service.web import body

    read_json = body.read_json

    async def leaky_read_json(*arguments: Any) -> bytes | bytearray:
        kept.append(bytearray(os.urandom(KEPT_BYTES)))
        if next(number) % 100 == 0:
            kept.append(open(os.devnull))  # noqa: PTH123, SIM115
        return await read_json(*arguments)

    curve.read_json = leaky_read_json


if __name__ == "__main__":
    # As the service does: the workers are forked from here, and so are leaky.
    from service import command

    main = command.main

    def leaky_main(*arguments: Any) -> int:
        """The service's own, once the leaks are there."""
        plant()
        return main(*arguments)

    command.main = leaky_main
    sys.exit(entrance.main())
