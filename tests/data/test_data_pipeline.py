"""A batch is a pure function of (seed, step): epochs, resume, processes, and what comes out."""

import threading
import time

import numpy as np
import pytest

from jaxgen.data.pipeline import Batches, batches, epoch, to_device
from jaxgen.data.source import ArraySource, Source


def small(n=23, lazy=False):
    images = np.arange(n * 4 * 4 * 3, dtype=np.uint64).astype(np.uint8).reshape(n, 4, 4, 3)
    source = ArraySource(images, np.arange(n) % 5, name="small", split="train")
    return Lazy(source) if lazy else source


class Lazy(Source):
    """The same items, one at a time."""

    def __init__(self, source):
        super().__init__(**source.facts)
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        time.sleep(0.0005 * (i % 3))
        return self.source[i]


def take(n, *args, **kwargs):
    with batches(*args, **kwargs) as it:
        return [next(it) for _ in range(n)]


def equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.keys() == y.keys()
        for k in x:
            assert x[k].dtype == y[k].dtype
            np.testing.assert_array_equal(x[k], y[k])


def test_every_epoch_is_another_permutation():
    n = 23
    got = np.concatenate([b["index"] for b in take(5 * n, small(n), 4, 7)])[: 5 * n]
    epochs = got.reshape(5, n)
    for e in epochs:
        np.testing.assert_array_equal(np.sort(e), np.arange(n))
    assert len({tuple(e) for e in epochs}) == 5


def test_order_is_grains_shuffle_repeat_batch():
    import grain

    reference = grain.MapDataset.range(23).seed(7).shuffle().repeat().batch(6)
    for step, b in enumerate(take(12, small(), 6, 7)):
        np.testing.assert_array_equal(b["index"], reference[step])


def test_rows_belong_to_their_index():
    source = small()
    for b in take(8, source, 6, 0):
        np.testing.assert_array_equal(b["image"], source.images[b["index"]])
        np.testing.assert_array_equal(b["label"], source.labels[b["index"]])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("start", [1, 5, 11])
def test_resume_equals_the_tail(start, lazy):
    whole = take(14, small(lazy=lazy), 6, 3)
    equal(take(14 - start, small(lazy=lazy), 6, 3, start_step=start), whole[start:])


def test_pure_in_seed_and_step():
    equal(take(6, small(lazy=True), 6, 3), take(6, small(), 6, 3, num_threads=3, prefetch=1))
    other = take(6, small(), 6, 4)
    assert any((a["index"] != b["index"]).any() for a, b in zip(take(6, small(), 6, 3), other))


def test_a_far_step_is_reached_at_once():
    begin = time.perf_counter()
    far = take(1, small(), 8, 3, start_step=10**12)
    assert time.perf_counter() - begin < 5
    equal(far, take(1, small(), 8, 3, start_step=10**12))


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("lazy", [False, True])
def test_processes_share_the_same_batches(processes, lazy):
    whole = take(9, small(lazy=lazy), 8, 5, start_step=2)
    parts = [
        take(9, small(lazy=lazy), 8, 5, 2, rows=rows) for rows in np.split(np.arange(8), processes)
    ]
    union = [{k: np.concatenate([q[k] for q in row]) for k in row[0]} for row in zip(*parts)]
    equal(union, whole)


def test_dtypes_and_no_data():
    b = take(1, small(), 6, 0)[0]
    assert {k: (v.dtype.name, v.shape) for k, v in b.items()} == {
        "image": ("uint8", (6, 4, 4, 3)),
        "label": ("int32", (6,)),
        "index": ("int32", (6,)),
    }
    vector = ArraySource(np.zeros((5, 2, 2, 1), np.uint8), np.ones((5, 3)))
    assert take(1, vector, 2, 0)[0]["label"].dtype == np.float32
    halves = [take(2, None, 4, 0, 3, rows=rows) for rows in ([0, 1], [2, 3])]
    assert [h.keys() for h in halves[0]] == [{"index"}] * 2
    np.testing.assert_array_equal(halves[1][1]["index"], [18, 19])
    assert take(1, None, 4, 0, start_step=2**40)[0]["index"].dtype == np.int32


def test_epoch_is_in_order_with_a_short_end():
    for source in (small(), small(lazy=True)):
        got = list(epoch(source, 10))
        assert [len(b["image"]) for b in got] == [10, 10, 3]
        np.testing.assert_array_equal(np.concatenate([b["index"] for b in got]), np.arange(23))
        assert [len(b["image"]) for b in epoch(source, 10, drop_remainder=True)] == [10, 10]


@pytest.mark.parametrize("seconds", [0.0, 0.03])
def test_to_device_keeps_two_ahead_and_counts_waiting(seconds):
    """Five batches one after the other, each read in so many seconds, by a loop of no work."""
    placed = []

    def put(b):
        placed.append(b)
        return b["index"] + 100

    def read(step):
        time.sleep(seconds)
        return {"index": np.arange(5) + 5 * step}

    host = Batches(read, start=3, ahead=1, threads=1, pool=None)
    with to_device(host, put) as it:
        np.testing.assert_array_equal(next(it), np.arange(115, 120))
        assert len(placed) == 3
        np.testing.assert_array_equal(next(it), np.arange(120, 125))
        np.testing.assert_array_equal(next(it), np.arange(125, 130))
        assert len(placed) == 5
        assert 5 * seconds * 0.9 <= it.wait_seconds < 5 * seconds + 1


def test_batches_that_are_there_are_not_waited_for():
    with batches(small(), 4, 0) as it:
        next(it)
        time.sleep(0.3)
        waited = it.wait_seconds
        for _ in range(3):
            next(it)
        assert it.wait_seconds - waited < 0.05


def test_to_device_on_a_mesh():
    import functools

    from jaxgen.common import mesh as meshes

    mesh = meshes.make_mesh()
    put = functools.partial(meshes.put_batch, mesh=mesh)
    with to_device(batches(small(), 16, 0), put) as it:
        got = next(it)
    equal([{k: np.asarray(v) for k, v in got.items()}], take(1, small(), 16, 0))


def test_close_ends_the_threads():
    before = threading.active_count()
    for _ in range(5):
        take(2, small(lazy=True), 4, 0)
    deadline = time.time() + 5
    while threading.active_count() > before + 2 and time.time() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before + 2
    it = batches(small(), 4, 0)
    it.close()
    it.close()


def test_errors():
    with pytest.raises(ValueError, match="rows must be some of the 0 rows of a batch, got"):
        batches(small(), 0, 0)
    with pytest.raises(ValueError, match=r"rows must be some of the 8 rows of a batch, got \[7, 8"):
        batches(small(), 8, 0, rows=range(7, 9))
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\^32\)"):
        batches(small(), 8, -1)
    with pytest.raises(ValueError, match="batch must be positive, got 0"):
        next(epoch(small(), 0))


def test_an_unreadable_image_is_named():
    class Broken(Lazy):
        def __getitem__(self, i):
            raise OSError(f"cat_{i}.png: cannot be read")

    with batches(Broken(small()), 4, 0) as it, pytest.raises(OSError, match=r"cat_\d+.png"):
        next(it)
