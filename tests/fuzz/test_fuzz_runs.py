"""Damaged texts of a run: config.json from which its plan is made, results.json, first steps."""

import json

import pytest
from fuzzing import COUNTS, damaged, fuzz, json_values, memory, replaced, tame
from hypothesis import strategies as st

from configs.edm2 import digits
from jaxgen.cli import common, reproduce
from jaxgen.train import firsts

FACTS = {
    "name": "digits", "shape": [8, 8, 1], "label_kind": "class", "label_dim": 10, "length": 100,
    "class_names": None,
}  # fmt: skip


def dumps(value):
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def saved():
    config = json.loads(digits.get_config().to_json())
    return {"config": config, "facts": FACTS, "command": {"config": "x.py", "overrides": []}}


@COUNTS
def test_runs_are_opened(count, saved, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(dumps(saved))
    assert common.Run.open(tmp_path).facts["label_dim"] == 10

    def body(data):
        path.write_bytes(data)

        def read():
            raw = common.read_saved(tmp_path)
            common.Run.open(tmp_path)
            return raw

        tame(read, tmp_path, str(path))

    parts = st.one_of(replaced(saved["config"]), json_values())
    whole = parts.map(lambda v: {**saved, "config": v})
    trees = st.one_of(whole, replaced(saved)).map(dumps)
    with memory(128):
        fuzz(count, st.one_of(trees, damaged([dumps(saved)])), body)


@COUNTS
def test_results_and_first_steps(count, saved, tmp_path):
    started = {"config": saved["config"], "versions": {"jax": "0.10"}, "data_fingerprint": "ab",
               "mesh": {"data": 1}, "processes": 1}  # fmt: skip
    steps = [{"step": n, "nimg": 8 * n, "main/loss": 0.5, "rate": None} for n in range(3)]
    results = {"config": saved["config"], "last": {"main/loss": 1.0}, "started": started,
               "first_steps": steps}  # fmt: skip
    record = {"started": started, "steps": steps}
    one, two = tmp_path / "results.json", tmp_path / "first_steps.json"
    now = dict.fromkeys(reproduce.SAME) | {"versions": {"jax": "0.11"}}

    def body(data):
        one.write_bytes(data)
        two.write_bytes(data)

        def read():
            began, recorded, _ = reproduce.read(one)
            reproduce.differences(began, now)
            firsts.compare(recorded, recorded, 0.0)

        tame(read, tmp_path, str(one))
        found, error = tame(lambda: firsts.read(two), tmp_path)
        assert error is None and (found == {} or firsts.are_steps(found["steps"]))

    trees = st.one_of(replaced(results), replaced(record), json_values()).map(dumps)
    with memory(64):
        fuzz(count, st.one_of(trees, damaged([dumps(results), dumps(record)])), body)
