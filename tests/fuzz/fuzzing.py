"""What the fuzz tests share: damaged files, and a watch over what reading them does.

A reader may return something, or raise ValueError or OSError (or a class of them) with a message
that names the file. It may not run, import or start anything that a file names, write outside of
the test's folder, or need more memory and time than it is allowed.
"""

import contextlib
import os
import pathlib
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, configuration, settings
from hypothesis import strategies as st
from PIL import Image

# Hypothesis keeps tables of Unicode in its folder even when it keeps no examples.
configuration.set_hypothesis_home_dir(pathlib.Path(tempfile.gettempdir(), "jaxgen-hypothesis"))

Image.init()  # Pillow imports all of its plugins at the first file that it does not know

DOCUMENTED = (ValueError, OSError)
SECONDS = 20.0  # of one file, on all threads: far above what any needs, far below a hang
COUNTS = pytest.mark.parametrize(
    "count", [100, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)


def fuzz(count: int, strategy: st.SearchStrategy, body: Callable[[Any], None]) -> None:
    """Calls body(example) so many times; the same examples in every run."""

    def one(example: Any) -> None:
        body(example)

    one.__name__ = one.__qualname__ = body.__qualname__.partition(".")[0]
    hypothesis.given(strategy)(
        settings(
            max_examples=count,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(one)
    )()


# --------------------------------------------------------------------------------- damaged files

EDGES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
)


@st.composite
def damaged(draw: Callable, seeds: Sequence[bytes] | Mapping[str, bytes]) -> Any:
    """One of the files with up to four changes, or other bytes; with its name if it has one."""
    names = sorted(seeds) if isinstance(seeds, Mapping) else range(len(seeds))
    name = draw(st.sampled_from(list(names)))
    data = bytearray(seeds[name])
    for _ in range(draw(st.integers(1, 4))):
        how = draw(st.integers(0, 7))
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        if draw(st.booleans()):  # most that matters stands in the head or at the end
            at = min(at % 64, max(len(data) - 1, 0)) if at % 2 else max(len(data) - 1 - at % 64, 0)
        span = draw(st.integers(1, 64))
        if how == 0 and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == 1:
            value, wide = draw(st.sampled_from(EDGES)), draw(st.sampled_from("BHIQ"))
            order = draw(st.sampled_from("<>"))
            size = struct.calcsize(wide)
            data[at : at + size] = struct.pack(order + wide, value % 256**size)
        elif how == 2:
            del data[at : at + span]
        elif how == 3:
            data[at:at] = data[at : at + span]
        elif how == 4:
            data[at:at] = draw(st.binary(max_size=16))
        elif how == 5:
            del data[at:]
        elif how == 6:
            data[at : at + 1] = draw(st.sampled_from([b"[" * 4000, b"9" * 40, b'"', b"null", b"-"]))
        elif draw(st.integers(0, 9)) == 0:
            data = bytearray(draw(st.binary(max_size=256)))
    return (name, bytes(data)) if isinstance(seeds, Mapping) else bytes(data)


def json_values() -> st.SearchStrategy:
    """Any JSON value, with the numbers and names that hurt."""
    texts = st.one_of(
        st.text('ab./\\"\x00,\n0é\u2028\ud800', max_size=8),
        st.sampled_from(["../../x", "/etc/passwd", "os.system"]),
    )
    numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 10**400, -1]))
    leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
    return st.recursive(
        leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4)
    )


def replaced(value: Any) -> st.SearchStrategy:
    """A JSON value of which one part, at any depth, is another value, or is missing."""
    places = list(_places(value))

    def change(draw_place: tuple, new: Any, drop: bool) -> Any:
        return _with(value, draw_place, new, drop)

    return st.builds(change, st.sampled_from(places), json_values(), st.booleans())


def _places(value: Any) -> Iterator[tuple]:
    yield ()
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from ((key, *rest) for rest in _places(value[key]))


def _with(value: Any, place: tuple, new: Any, drop: bool) -> Any:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if drop and len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = _with(value[place[0]], place[1:], new, drop)
    return copy


# ------------------------------------------------------------------------------------- the watch

STARTED = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "subprocess.Popen", "pty.spawn", "ctypes.dlopen", "pickle.find_class", "socket.connect",
    "socket.getaddrinfo", "socket.bind", "urllib.Request", "webbrowser.open",
}  # fmt: skip
CHANGED = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod",
    "os.chown", "os.truncate", "os.utime", "shutil.rmtree", "shutil.move",
}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What jaxgen stands on loads parts of itself late; what a file names would be something else.
OURS = {"PIL", "numpy", "array_record", "tensorflow_datasets", "jax", "jaxlib", "orbax", "google",
        "etils", "tensorstore", "absl", "jaxgen", "hypothesis", "_pytest", "pytest"}  # fmt: skip
INSTALLED = tuple({os.path.dirname(p.__file__) for p in (os, pytest)} | {sys.prefix, "<frozen"})


class Watch:
    """What the process does between `with` and its end, as the interpreter's audit events say."""

    now: "Watch | None" = None

    def __init__(self, folder: pathlib.Path):
        self.folder, self.events = os.path.realpath(folder), []

    def __enter__(self) -> "Watch":
        Watch.now = self
        return self

    def __exit__(self, *_: Any) -> None:
        Watch.now = None

    def look(self, event: str, args: tuple) -> None:
        if event in STARTED:
            self.events.append((event, str(args)[:200]))
        elif event == "import":
            top = str(args[0]).partition(".")[0]
            if top not in sys.stdlib_module_names and top not in OURS:
                self.events.append((event, str(args[0])))
        elif event == "exec":
            self.known(event, getattr(args[0], "co_filename", ""))
        elif event == "compile" and args[1] not in (None, "<unknown>"):  # of ast.literal_eval
            self.known(event, os.fsdecode(args[1]) if isinstance(args[1], str | bytes) else "")
        elif event == "open":
            path, mode, flags = args
            writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & WRITES)
            if writes and not isinstance(path, int):
                self.inside(event, path)
        elif event in CHANGED:
            for path in args[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                if not isinstance(path, int):
                    self.inside(event, path)

    def known(self, event: str, name: str) -> None:
        """Code comes from what is installed, or is a class that the standard library writes."""
        frame = sys._getframe(3)  # after this, `look` and the hook
        writers = ("/collections/__init__.py", "/dataclasses.py")
        if not (name.startswith((*INSTALLED, ROOT)) or frame.f_code.co_filename.endswith(writers)):
            self.events.append((event, name))

    def inside(self, event: str, path: Any) -> None:
        real = os.path.realpath(os.fsdecode(path))
        compiled = real.startswith(INSTALLED) and "__pycache__" in real
        compiled |= real.startswith(os.path.realpath(os.environ["JAX_COMPILATION_CACHE_DIR"]))
        if not ((real + "/").startswith(self.folder + "/") or compiled or real == os.devnull):
            self.events.append((event, real))


ROOT = str(pathlib.Path(__file__).resolve().parents[2])


def _hook(event: str, args: tuple) -> None:
    watch = Watch.now
    if watch is not None:
        watch.look(event, args)


sys.addaudithook(_hook)


def tame(
    read: Callable[[], Any], folder: pathlib.Path, name: str | None = None
) -> tuple[Any, Exception | None]:
    """(value, None), or (None, the documented exception); any other behaviour fails.

    Args:
      read: reads a damaged file. folder: the only one where anything may be written. name: what
      the message of an exception must hold; None: the folder.
    """
    start, value, error = time.process_time(), None, None
    with Watch(folder) as watch:
        try:
            value = read()
        except DOCUMENTED as e:
            error = e
    seconds = time.process_time() - start
    assert not watch.events, f"reading did this: {watch.events[:9]}"
    assert seconds < SECONDS, f"reading took {seconds:.0f} s of processor time"
    if error is not None:
        assert (str(folder) if name is None else name) in str(error), f"names no file: {error!r}"
        assert not isinstance(error, UnicodeError), f"not explained: {error!r}"
    return value, error


@contextlib.contextmanager
def memory(megabytes: float) -> Iterator[None]:
    """Fails when the process's peak grows by more than so much; where the kernel can tell."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        peak = lambda: _status("VmHWM")
        before = _status("VmRSS")
    except OSError:
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak()
    yield
    grown = peak() - before
    assert grown < megabytes, f"memory grew by {grown:.0f} MB, and {megabytes} are allowed"


def _status(name: str) -> float:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {name}")
