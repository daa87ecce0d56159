"""``python -m service``: serve on HOST (127.0.0.1) and PORT (8000)."""

import argparse
import os

import uvicorn

from service.app import create_app


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the artifacts over HTTP. Further settings: GRADSERVE_* variables.",
    )
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    options = parser.parse_args()
    config = uvicorn.Config(
        create_app(),
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
