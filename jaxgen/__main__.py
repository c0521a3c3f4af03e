"""The `jaxgen` command: `jaxgen COMMAND --help` tells more. Heavy imports wait for the command."""

import difflib
import importlib
import os
import sys

COMMANDS = {
    "train": "train the run that a config describes, or go on with it",
    "reproduce": "start a run again from its results.json and compare the first losses",
    "sample": "draw samples with an average of the weights",
    "invert": "draw the images that a measurement tells of, with a score network",
    "restore": "restore a photo or a folder of photos with a denoiser",
    "project": "find the style with which a generator makes an image",
    "average": "rebuild EMA lengths from the snapshots of a finished run",
    "evaluate": "score samples against real images",
    "plan": "estimate memory, time and cost of a run, on machines that need not be here",
    "import": "make a run of published weights",
    "data": "look at a data set, or prepare a folder of images",
}
MODULES = {"import": "import_weights"}  # commands that Python could not name


def usage() -> str:
    """The text of `jaxgen --help`."""
    rows = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return (
        "usage: jaxgen COMMAND [options]\n\n"
        f"{rows}\n\n"
        "example:\n"
        "  jaxgen train --config configs/edm2/digits.py --workdir runs/digits\n"
        "  jaxgen sample --workdir runs/digits --num 100 --classes 0-9 --out grid.png\n\n"
        "jaxgen COMMAND --help lists the options of a command."
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, rest = argv[0], argv[1:]
    if name == "--version":
        from jaxgen import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"error: no command {name!r}.{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"jaxgen.cli.{MODULES.get(name, name)}").main(rest)
    except (ValueError, OSError, RuntimeError, KeyError) as e:
        if os.environ.get("JAXGEN_TRACEBACK"):
            raise
        text = e.args[0] if isinstance(e, KeyError) and e.args else e
        print(f"error: {text}", file=sys.stderr)
        print("(JAXGEN_TRACEBACK=1 shows where it came from)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
