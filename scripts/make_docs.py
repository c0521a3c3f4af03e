#!/usr/bin/env python
"""Writes docs/index.md: ideas, files and papers, from first docstring lines; `--check` compares.

    python scripts/make_docs.py          # after adding an idea, a config or a command
    python scripts/make_docs.py --check  # exits 1 when docs/index.md is out of date

Files are parsed, not imported.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "docs" / "index.md"
IDEAS = {
    "networks": "Networks: one file an architecture",
    "nn": "Layers that more than one network uses",
    "noise": "Noise: levels, preconditioning, corruption",
    "objectives": "Objectives: one file a training idea",
    "samplers": "Samplers",
    "averaging": "Averages of weights",
    "metrics": "Metrics",
}
PAPER = re.compile(r"\s*\((?P<text>[^()]*(?:arXiv|doi):[^()]*)\)")
LINKS = (
    (re.compile(r"arXiv:(\d{4}\.\d{4,5})"), r"[arXiv:\1](https://arxiv.org/abs/\1)"),
    (re.compile(r"doi:(10\.[^\s,;]+)"), r"[doi:\1](https://doi.org/\1)"),
)


def first_line(path: Path) -> str:
    """The first docstring line of a Python file, or the first comment line of another script."""
    text = path.read_text()
    if path.suffix == ".py" or text.partition("\n")[0].endswith(("python", "python3")):
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    comments = (x.strip("# ") for x in text.splitlines() if re.match(r"#\s*\w", x))
    return next(comments, "")


def command(path: Path) -> str:
    """The command on the `Run:` line of a config's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    found = re.search(r"^Run: (.*)$", doc, re.MULTILINE)
    return f"`{found[1]}`" if found else ""


def idea(path: Path, root: Path) -> tuple[str, str, str]:
    """(the sentence, the file as a link, the paper as a link) of an idea file."""
    line = first_line(path)
    paper = PAPER.search(line)
    text, cited = line, ""
    if paper:
        text, cited = line.replace(paper[0], ""), paper["text"].strip()
        for pattern, link in LINKS:
            cited = pattern.sub(link, cited)
    return text.rstrip("."), link_to(path, root), cited


def link_to(path: Path, root: Path) -> str:
    """A link from docs/ to a file."""
    name = path.relative_to(root).as_posix()
    return f"[{name}](../{name})"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A markdown table."""
    escape = lambda cell: cell.replace("|", "\\|")
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(map(escape, row)) + " |" for row in lines]


def commands(root: Path) -> list[tuple[str, str]]:
    """(command, what it does) from the table in jaxgen/__main__.py."""
    for node in ast.parse((root / "jaxgen" / "__main__.py").read_text()).body:
        names = [getattr(t, "id", "") for t in getattr(node, "targets", [])]
        if names == ["COMMANDS"]:
            return [(f"`jaxgen {n}`", t) for n, t in ast.literal_eval(node.value).items()]
    raise ValueError("jaxgen/__main__.py has no COMMANDS table; `jaxgen --help` is made from it")


def scripts(root: Path) -> list[Path]:
    """The scripts, in order."""
    return sorted(p for p in (root / "scripts").iterdir() if p.is_file())


def lines(root: Path) -> Iterator[str]:
    """The whole of docs/index.md."""
    yield from ("# Index", "")
    yield from ("Made by `python scripts/make_docs.py` from the first line of each file.", "")
    yield "See also [architecture](architecture.md), [notation](notation.md),"
    yield "[adding a paper](adding_a_paper.md), [speed](speed.md) and"
    yield from ("[experiments](../experiments/index.md).", "")
    for package, title in IDEAS.items():
        files = sorted((root / "jaxgen" / package).glob("*.py"))
        rows = [idea(p, root) for p in files if p.name != "__init__.py"]
        yield from (f"## {title}", "", *table(("idea", "file", "paper"), rows), "")
    configs = [p for p in sorted((root / "configs").glob("*/*.py")) if p.name != "__init__.py"]
    rows = [(first_line(p).rstrip("."), link_to(p, root), command(p)) for p in configs]
    yield from ("## Configs", "", *table(("run", "file", "command"), rows), "")
    yield from ("## Commands", "", *table(("command", "does"), commands(root)), "")
    rows = [(link_to(p, root), first_line(p)) for p in scripts(root)]
    yield from ("## Scripts", "", *table(("script", "does"), rows), "")


def main(argv: list[str]) -> int:
    """Writes or checks the index."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--check", action="store_true", help="write nothing; exit 1 when out of date")
    args = p.parse_args(argv)
    text = "\n".join(lines(ROOT))
    if args.check:
        if INDEX.is_file() and INDEX.read_text() == text:
            return 0
        print("docs/index.md is out of date; run: python scripts/make_docs.py", file=sys.stderr)
        return 1
    INDEX.write_text(text)
    print(f"wrote {INDEX.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
