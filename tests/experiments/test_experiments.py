"""Experiments keep their shape, their tables come from their results, and their code runs."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import common

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(p.parent for p in (ROOT / "experiments").glob("*/run.py"))
FOLDERS = [p for p in CODE if (p / "results.csv").is_file()]  # the others have not been run yet
name_of = lambda path: path.name


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_readme_says_what_was_claimed_and_found(folder):
    text = (folder / "README.md").read_text()
    assert re.search(r"arXiv:\d{4}\.\d{5}", text), "name the paper"
    for title in ("## Claim", "## Setup", "## Results", "## Verdict"):
        part = text.partition(title + "\n")[2].partition("\n## ")[0].strip()
        assert len(part) > 40, f"{title} says nothing"
    assert f"python experiments/{folder.name}/run.py" in text, "give the command"
    assert "![" in text.partition("## Results")[2] and (folder / "figure.png").is_file()


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_table_is_that_of_the_results(folder):
    with (folder / "results.csv").open() as f:
        rows = list(csv.DictReader(f))
    block = (folder / "README.md").read_text().partition(common.MARKS[0])[2]
    lines = block.partition(common.MARKS[1])[0].strip().splitlines()
    cells = lambda line: [c.strip() for c in line.strip("|").split("|")]
    columns, body = cells(lines[0]), [cells(line) for line in lines[2:]]
    typed = [{n: _typed(v) for n, v in row.items()} for row in rows]
    shown = common.table(typed, columns).splitlines()[2:]
    assert [cells(line) for line in shown[: len(body)]] == body and body


def _typed(text):
    """A csv cell as it was: a float, an integer, a word, or nothing."""
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@pytest.mark.slow
@pytest.mark.parametrize("folder", CODE, ids=name_of)
def test_it_runs_at_debug_size(folder, tmp_path):
    args = [sys.executable, str(folder / "run.py"), "--budget", "debug", "--workdir", tmp_path]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "debug" / "results.csv").is_file()
    assert (tmp_path / "debug" / "figure.png").is_file()


def test_a_table_replaces_the_one_before(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"a\n{common.MARKS[0]}\nold\n{common.MARKS[1]}\nb\n")
    common.put_table(path, [{"x": 1, "y": 0.123456, "z": "no"}], ["x", "y"])
    assert "| 1 | 0.1235 |" in path.read_text() and "old" not in path.read_text()
    path.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines <!-- results -->"):
        common.put_table(path, [{"x": 1}], ["x"])


def test_the_index_names_every_experiment_and_whether_it_was_run():
    lines = (ROOT / "experiments" / "index.md").read_text().splitlines()
    for folder in CODE:
        row = [line for line in lines if f"[{folder.name}]({folder.name}/" in line]
        assert len(row) == 1, folder.name
        assert ("not run yet" in row[0]) == (folder not in FOLDERS), row[0]
