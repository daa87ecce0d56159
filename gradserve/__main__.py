"""``gradserve serve | train | publish | init | import``, the same as ``python -m gradserve``."""

import sys

from gradserve.names import HOME, NameClash, require_own

USAGE = """usage: gradserve COMMAND [options]; gradserve COMMAND --help tells them

  serve      serve the models in artifacts/ over HTTP
  train      fit and train the models that come with gradserve
  init       write a file to publish a function of your own from
  publish    publish your own module or function with its derivatives
  import     publish a ready ONNX file"""
TRAINING = ("init", "publish", "import")


def main() -> int:
    """Hand the rest of the command line to the part that it is for; the exit status."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    # `python -m` puts the current folder first, and a `training` in it isn't ours.
    sys.path.insert(0, str(HOME))
    try:
        require_own()
    except NameClash as clash:
        print(f"gradserve: {clash}", file=sys.stderr)
        return 2
    return _run(words[0], words[1:])


def _run(command: str, rest: list[str]) -> int:
    if command == "serve":
        from service.__main__ import main as serve

        sys.argv = ["gradserve serve", *rest]
        return serve()
    if command not in ("train", *TRAINING):
        print(f"gradserve: there is no command {command!r}\n{USAGE}", file=sys.stderr)
        return 2
    try:
        from training.__main__ import main as train
    except ModuleNotFoundError as missing:
        print(
            f"gradserve {command} needs {missing.name}: pip install 'gradserve[training]'",
            file=sys.stderr,
        )
        return 2
    if command == "train":
        return train(rest, "gradserve train")
    return train([command, *rest], "gradserve")


if __name__ == "__main__":
    sys.exit(main())
