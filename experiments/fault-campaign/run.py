"""What is lost when a run is killed, starved or damaged at random (2407.21783, Section 3.3.4)?

The trials of scripts/fault_campaign.py, counted by fault: real processes of `jaxgen train`, hurt,
resumed by the same command and compared with undisturbed ones.
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments import common

sys.path.insert(0, str(common.ROOT / "scripts"))

COLUMNS = (
    "fault", "trials", "skipped", "too late", "resumed", "exact", "lost steps, mean",
    "lost steps, max", "hung", "wrong",
)  # fmt: skip


def run(e: common.Experiment) -> None:
    """Runs the campaign, or takes the trials that are found, and counts them."""
    import fault_campaign

    out = e.workdir / f"seed{e.seed}"
    trials = e.pick(200, 1000, 3)
    script = str(common.ROOT / "scripts" / "fault_campaign.py")
    command = [sys.executable, script, "--trials", str(trials), "--seed", str(e.seed), "--go_on"]
    command += ["--workers", "2"]
    e.log(" ".join(command))
    code = subprocess.run([*command, "--out", str(out)]).returncode
    if code not in (0, 1):  # 1: something hung or was wrong, and the table says so
        raise SystemExit(code)
    trials = fault_campaign.read(out / "trials.csv")
    e.out.mkdir(parents=True, exist_ok=True)
    fault_campaign.write(e.out / "trials.csv", trials)
    e.write(fault_campaign.summary(trials), COLUMNS)
    figure(e, trials)


def figure(e: common.Experiment, trials: list[dict]) -> None:
    """Steps of lost work, a row a fault and a dot a trial."""
    import matplotlib.pyplot as plt
    import numpy as np

    names = list(dict.fromkeys(t["fault"] for t in trials))[::-1]
    fig, ax = plt.subplots(figsize=(8, 0.28 * len(names) + 1.2), layout="constrained")
    shift = np.random.default_rng(0).uniform(-0.25, 0.25, len(trials))
    for t, y in zip(trials, shift):
        if t["lost_steps"] is not None:
            colour = "tab:red" if t["wrong"] or t["hung"] else "tab:blue"
            place = names.index(t["fault"]) + y
            ax.plot(t["lost_steps"], place, "o", ms=4, alpha=0.6, color=colour)
    ax.axvline(8, color="k", ls=":", lw=1)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="steps lost (a checkpoint every 8 steps: dotted)")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)
