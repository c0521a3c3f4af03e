"""Nothing in the library can run what a file holds: calls that could are listed with reasons."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "jaxgen").rglob("*.py"))

# Calls by their last one or two names. A module alone stands for everything in it.
BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN = {
    "import_module", "run_path", "run_module",
    "exec_module", "module_from_spec", "spec_from_file_location", "unpack_archive",
    "extractall", "os.system", "os.popen", "os.startfile", "os.fork", "os.execv",
    "os.execve", "os.execvp", "os.posix_spawn", "os.spawnv", "torch.load", "joblib.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "Image.open", "np.load", "numpy.load",
    "np.fromfile", "np.memmap", "np.lib.format.open_memmap", "builder_from_directory",
    "builder_from_directories", "tfds.load", "tfds.builder", "DEFINE_config_file",
}  # fmt: skip
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy",
    "code", "imp", "subprocess", "pty", "ctypes", "yaml", "torch", "h5py", "tarfile", "pandas",
}  # fmt: skip
# (file, name): why it may. What is not here fails, and so does what is here and not there.
ALLOWED = {
    ("jaxgen/__main__.py", "import_module"): "a command's own module, from a table",
    ("jaxgen/recipes/__init__.py", "import_module"): "a recipe, from the names in the package",
    ("jaxgen/recipes/gan_networks.py", "import_module"): "a network, from the names in the package",
    ("jaxgen/common/provenance.py", "subprocess"): "git, about jaxgen's own folder",
    ("jaxgen/cli/common.py", "DEFINE_config_file"): "configs are Python: the one exception",
    ("jaxgen/data/images.py", "Image.open"): "`opened`, with a list of formats",
    ("jaxgen/data/tfds.py", "builder_from_directory"): "after check_folder",
    ("jaxgen/data/tfds.py", "tfds.builder"): "after check_folder",
    ("jaxgen/data/named.py", "tfds.load"): "jaxgen.data.tfds",
    ("jaxgen/data/sources.py", "tfds.load"): "jaxgen.data.tfds",
    ("jaxgen/metrics/features.py", "np.load"): "jaxgen's own file, allow_pickle=False",
}


def dotted(node: ast.AST) -> str:
    """ "a.b.c" of an expression of names, else its last name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def found(text: str) -> set[str]:
    """The forbidden calls, imports and mentions in a source text."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {a.name.partition(".")[0] for a in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module.partition(".")[0]} & MODULES
            names |= {a.name for a in node.names} & FORBIDDEN
        elif isinstance(node, ast.Name):  # called, or handed on to be called
            names |= {node.id} & (BUILTINS | FORBIDDEN)
        elif isinstance(node, ast.Attribute):
            full = dotted(node)
            names |= {full, ".".join(full.split(".")[-2:]), node.attr} & FORBIDDEN
            if full.rpartition(".")[0] in ("builtins", "__builtins__"):
                names |= {node.attr} & BUILTINS
        elif isinstance(node, ast.Call):
            for word in node.keywords:
                if word.arg == "allow_pickle" and getattr(word.value, "value", None) is not False:
                    names.add("allow_pickle")
                if word.arg == "shell":
                    names.add("shell")
    return names


def test_nothing_could_run_what_is_read():
    seen = {(p.relative_to(ROOT).as_posix(), n) for p in LIBRARY for n in found(p.read_text())}
    assert not seen - ALLOWED.keys(), "calls that can run code: take another way, or say why here"
    assert not ALLOWED.keys() - seen, "gone from the library: take it off this list"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch.serialization", "eval('1')",
        "exec(x)", "import os\nos.system('x')", "import numpy as np\nnp.load(f)", "f = eval",
        "import numpy as np\nnp.lib.format.read_array(f, allow_pickle=True)", "__import__('x')",
        "from PIL import Image\nwith Image.open(p) as i: pass", "import yaml", "compile(s, n, m)",
        "from subprocess import run", "run(x, shell=True)", "importlib.import_module(name)",
        "z.extractall(p)", "from importlib import import_module", "read(f, allow_pickle=flag)",
        "import PIL.Image\nPIL.Image.open(p)", "tfds.builder_from_directory(d)", "builtins.eval(x)",
    ],
)  # fmt: skip
def test_such_calls_are_found(text):
    assert found(text)


def test_others_are_not():
    text = "import re, jax\nre.compile('x')\njax.jit(f).lower(x).compile()\nnp.loadtxt\n"
    assert not found(text + "np.lib.format.read_array(f, allow_pickle=False)\nmodel.eval()")


def test_numpy_and_pillow_are_called_safely():
    """What the list allows has its argument."""
    for name, call, argument in (
        ("jaxgen/metrics/features.py", "np.load", "allow_pickle"),
        ("jaxgen/data/images.py", "Image.open", "formats"),
    ):
        calls = [
            node
            for node in ast.walk(ast.parse((ROOT / name).read_text()))
            if isinstance(node, ast.Call) and dotted(node.func) == call
        ]
        assert calls and all(argument in [k.arg for k in c.keywords] for c in calls)
