"""The house rules: who imports whom, papers named, lengths, docstrings, a quick command line."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "jaxgen").rglob("*.py"))
CODE = sorted(
    p for d in ("jaxgen", "configs", "scripts", "tests") for p in (ROOT / d).rglob("*.py")
)
ANY = {
    "common",
    "nn",
    "noise",
    "averaging",
    "metrics",
    "data",
    "networks",
    "objectives",
    "samplers",
}
MAY_IMPORT = {  # docs/architecture.md has the same table
    "common": set(),
    "nn": {"common"},
    "noise": {"common"},
    "averaging": {"common"},
    "metrics": {"common"},
    "data": {"common"},
    "networks": {"nn", "common"},
    "objectives": {"noise", "common"},
    "samplers": {"noise", "common"},
    "train": {"averaging", "common"},
    "planning": {"train", "common"},
    "recipes": {*ANY, "train"},
    "interop": {"networks", "nn", "noise", "common"},
    "cli": {"recipes", "train", "samplers", "metrics", "data", "interop", "planning", "common"},
}
IDEAS = ("networks", "nn", "noise", "objectives", "samplers", "averaging", "metrics")
PLUMBING = {  # files beside ideas that stand on no paper
    "metrics/classifier.py",
    "metrics/distances.py",
    "metrics/evaluate.py",
    "metrics/moments.py",
    "metrics/neighbours.py",
    "metrics/reference.py",
    "metrics/nets.py",
    "metrics/stream.py",
}
OVERRIDES = {"setup", "error"}  # methods that flax and argparse document
HEAVY = (
    "jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "ml_collections", "sklearn",
    "scipy", "matplotlib", "PIL", "tensorboardX",
)  # fmt: skip

spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
make_docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_docs)


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, at any depth; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the package's name in imports"
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return names


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def wrong_arrows(path: Path) -> set[str]:
    """The packages that a library file imports and must not."""
    parts = path.relative_to(ROOT / "jaxgen").parts
    if len(parts) == 1:
        return set()
    found = {n.split(".")[1] for n in imported(path) if n.startswith("jaxgen.")}
    return (found & set(MAY_IMPORT)) - MAY_IMPORT[parts[0]] - {parts[0]}


def test_every_package_has_a_place_in_the_import_rule():
    packages = {p.parent.name for p in (ROOT / "jaxgen").glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_imports_follow_the_arrows(path):
    wrong = wrong_arrows(path)
    package = path.relative_to(ROOT / "jaxgen").parts[0]
    assert not wrong, f"{name_of(path)}: {package} must not import {sorted(wrong)}"


def test_a_wrong_arrow_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "jaxgen" / "objectives" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def f():\n    from jaxgen import networks\n    import jaxgen.noise.levels\n")
    assert wrong_arrows(bad) == {"networks"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=name_of)
def test_configs_import_only_ml_collections_and_configs(path):
    assert {n.split(".")[0] for n in imported(path)} <= {"ml_collections", "configs", "typing"}


def test_configdict_and_files_stay_where_they_belong():
    """Below recipes no ConfigDict; in recipes no files, flags or progress."""
    for path in LIBRARY:
        package, names = path.parent.name, {n.split(".")[0] for n in imported(path)}
        if package not in ("recipes", "cli"):
            assert "ml_collections" not in names, f"{name_of(path)}: take keyword arguments"
        if package == "recipes":
            assert not names & {"pathlib", "os", "argparse", "absl", "tqdm"}, name_of(path)


def test_idea_files_name_their_paper_in_the_first_line():
    for package in IDEAS:
        for path in sorted((ROOT / "jaxgen" / package).glob("*.py")):
            if path.name == "__init__.py" or f"{package}/{path.name}" in PLUMBING:
                continue
            line = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
            assert re.search(r"\([^()]*(arXiv:\d{4}\.\d{4,5}|doi:10\.)[^()]*\)", line), (
                f'{name_of(path)} must open with """Name: one sentence (arXiv:id).""", got {line!r}'
            )
    for name in PLUMBING:
        assert (ROOT / "jaxgen" / name).is_file(), f"{name} is gone: take it off PLUMBING"


def test_files_are_under_400_lines():
    lengths = {name_of(p): len(p.read_text().splitlines()) for p in CODE}
    assert not {n: k for n, k in lengths.items() if k >= 400}, "past 400 lines a file is two ideas"


def test_the_index_is_up_to_date():
    assert make_docs.main(["--check"]) == 0, "run: python scripts/make_docs.py"


def test_the_index_is_made_from_first_lines(tmp_path):
    path = tmp_path / "jaxgen" / "networks" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text('"""Net: all of it (arXiv:1234.56789, Eq. 2).\n\nMore.\n"""\n')
    link = "[arXiv:1234.56789](https://arxiv.org/abs/1234.56789), Eq. 2"
    assert make_docs.idea(path, tmp_path) == (
        "Net: all of it",
        "[jaxgen/networks/x.py](../jaxgen/networks/x.py)",
        link,
    )


def test_documents_link_to_files_that_exist():
    for path in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{name_of(path)} links to {target}"


def tracked() -> list[Path]:
    """The repository's own files: git's list, or all but the ignored ones outside of a clone."""
    git = ["git", "ls-files", "-c", "-o", "--exclude-standard", "-z"]
    try:
        out = subprocess.run(git, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
        names = [n for n in out.decode().split("\0") if n]
    except (OSError, subprocess.SubprocessError):
        names = [name_of(p) for d in ("jaxgen", "configs", "scripts", "tests", "docs")
                 for p in (ROOT / d).rglob("*") if "__pycache__" not in p.parts]  # fmt: skip
    return [ROOT / n for n in names if (ROOT / n).is_file()]


def test_no_machine_paths():
    """No path of the machine that a file was written on."""
    private = re.compile(r"(?<![\w.])/(work|tmp/c|home/\w+|root|Users/\w+)/")
    for path in tracked():
        if path == Path(__file__) or path.suffix in (".npz", ".png", ".npy", ".webp"):
            continue
        for i, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            assert not private.search(line), f"{name_of(path)}:{i}: {line.strip()[:80]}"


def undocumented(path: Path) -> list[str]:
    """Public functions, classes and methods without a docstring or full annotations.

    A method that its base class in the same file documents needs no docstring; nor do OVERRIDES.
    """
    found, documented = [], {}

    def look(node: ast.AST, owner: str = "", bases: tuple[str, ...] = ()) -> None:
        for f in ast.iter_child_nodes(node):
            if not isinstance(f, (ast.ClassDef, ast.FunctionDef)) or f.name.startswith("_"):
                continue
            where, doc = f"{name_of(path)}:{f.lineno} {owner}{f.name}", ast.get_docstring(f)
            documented[owner + f.name] = doc
            if isinstance(f, ast.ClassDef):
                look(f, f"{f.name}.", tuple(f"{ast.unparse(b)}.{{}}" for b in f.bases))
            elif owner and f.name in OVERRIDES:
                continue
            else:
                a = f.args
                args = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
                bare = [x.arg for x in args if x and not x.annotation]
                bare = [x for x in bare if x not in ("self", "cls")]
                if bare or f.returns is None:
                    found.append(f"{where}: no annotation of {bare or 'the result'}")
            if not doc and not any(documented.get(b.format(f.name)) for b in bases):
                found.append(f"{where}: no docstring")

    look(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_public_functions_have_docstrings_and_annotations(path):
    assert not (missing := undocumented(path)), "\n".join(missing)


HELP = """
import json, sys
from jaxgen.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as e:
    assert not e.code, e.code
print()
print(json.dumps(sorted({m.split(".")[0] for m in sys.modules})))
"""


def commands() -> list[str]:
    return [c.strip("`").removeprefix("jaxgen ") for c, _ in make_docs.commands(ROOT)]


@pytest.mark.parametrize("command", ["", *commands()])
def test_help_is_quick_short_and_has_an_example(command):
    """Two seconds is the promise; what is certain is that nothing heavy is imported."""
    argv, seconds = [command, "--help"] if command else ["--help"], []
    for _ in range(2):  # the better of two: the first also reads the files from disk
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", HELP, *argv],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 2:
            break
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    assert not set(HEAVY) & set(json.loads(modules)), "heavy imports belong inside functions"
    assert "example" in text and len(text.splitlines()) < 60, text
    assert min(seconds) < 4, f"{seconds}"
