"""What the commands share: argument groups, configs, the run in a workdir, its averages."""

import argparse
import contextlib
import dataclasses
import difflib
import importlib.util
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.cli.saved import read_saved


class Parser(argparse.ArgumentParser):
    """argparse with the project's habits: an example at the end, near names for unknown flags."""

    def __init__(self, command: str, purpose: str, example: str):
        super().__init__(
            prog=f"jaxgen {command}",
            description=purpose,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """(flags, overrides of the config); any other option is an error."""
        args, rest = self.parse_known_args(argv)
        for word in rest:
            if word.startswith("-") and not word.startswith("--config."):
                self.error(f"unknown option {word}")
        return args, rest

    def error(self, message: str) -> None:
        flags = [s for a in self._actions for s in a.option_strings]
        for word in message.split():
            if word.startswith("--"):
                near = difflib.get_close_matches(word.split("=")[0], flags, 1)
                if near and near[0] != word:
                    message += f" (did you mean {near[0]}?)"
        self.exit(2, f"error: {message}\n{self.format_usage()}")


def add_run_flags(parser: Parser) -> None:
    """--workdir and how its average is chosen."""
    group = parser.add_argument_group("run")
    group.add_argument("--workdir", required=True, help="folder of the run")
    group.add_argument(
        "--average",
        help="EMA length such as 0.07, a tracked profile's name, or raw (default: the config's)",
    )
    group.add_argument("--nimg", type=int, help="image count of the snapshot (default: newest)")
    group.add_argument(
        "--no_verify", action="store_true", help="skip the checksums of what is read"
    )


def add_process_flags(parser: Parser, explained: bool = True) -> None:
    """--coordinator and what belongs to it; explained: in the command's --help."""
    from jaxgen.common import processes

    group = parser.add_argument_group(
        "several processes (found without flags on SLURM, TPU pods, JobSets; see docs/pods.md)"
    )
    join, silence = processes.JOIN_SECONDS, processes.SILENCE_SECONDS
    for name, kind, short, default, text in (
        ("--coordinator", str, "IP:PORT", None, "an address of process 0"),
        ("--num_processes", int, "N", None, "how many there are"),
        ("--process_id", int, "I", None, "which one this is, 0 to N-1"),
        ("--join_timeout", float, "S", join, f"seconds to wait for all others ({join})"),
        ("--silence_timeout", int, "S", silence, f"seconds until one counts as dead ({silence})"),
    ):
        text = text if explained else argparse.SUPPRESS
        group.add_argument(name, type=kind, metavar=short, default=default, help=text)


@contextlib.contextmanager
def several(args: argparse.Namespace) -> Iterator[None]:
    """JAX set up, and this process joined with the others that flags or the cluster tell of."""
    from jaxgen.common import processes

    place = processes.check_flags(args.coordinator, args.num_processes, args.process_id)
    setup_jax()
    with processes.joined(place or processes.detect(), args.join_timeout, args.silence_timeout):
        yield


# By default XLA (jaxlib 0.10) gives a CPU's convolutions to YNNPACK, which uses one core for most
# of them and takes three times as long for gradients of weights as Eigen. And it merges what remat
# computes again with what was computed before, so that remat saves nothing.
CPU_FLAGS = (
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",
    "--xla_disable_hlo_passes=cse_barrier_expander",
)


def setup_jax() -> None:
    """Settings of JAX that all commands share; to be called before the first computation.

    Compiled programs are kept between processes: in $XDG_CACHE_HOME/jaxgen/xla or
    ~/.cache/jaxgen/xla unless JAX_COMPILATION_CACHE_DIR says where (docs/speed.md says more).
    CPU_FLAGS are added to XLA_FLAGS, but for those that it names already; not where libtpu is
    installed, which reads the same variable.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    if not importlib.util.find_spec("libtpu"):
        new = [f for f in CPU_FLAGS if f.partition("=")[0] not in flags]
        os.environ["XLA_FLAGS"] = " ".join([flags, *new]).strip()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "jaxgen", "xla"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        # The initial state is made by dozens of small programs, together a second of a start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def load_config(spec: Any, overrides: Sequence[str]) -> Any:
    """The ConfigDict of `file.py:arg`, or a given one, with `--config.a.b=value` overrides.

    Raises:
      ValueError: no such file, unknown key (with the nearest), wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    argv = ["jaxgen", *overrides]
    if not isinstance(spec, str):
        config_flags.DEFINE_config_dict("config", spec, flag_values=values, sys_argv=argv)
    else:
        path = Path(spec.partition(":")[0])
        if not path.is_file():
            raise ValueError(
                f"--config: there is no file {path}; the ones that ship are in the configs/ folder "
                "of the repository, run the command from there"
            )
        for parent in path.resolve().parents:
            if parent.name == "configs" and str(parent.parent) not in sys.path:
                sys.path.insert(0, str(parent.parent))  # configs import configs.common
        argv.insert(1, f"--config={spec}")
        config_flags.DEFINE_config_file(
            "config", lock_config=True, flag_values=values, sys_argv=argv
        )
    try:
        rest = values(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError) as e:
        raise ValueError(f"--config: {str(e).strip()}") from e
    if rest:
        raise ValueError(f"unexpected arguments {rest}; settings are written --config.name=value")
    return values.config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model.channels": 32, ...} with tuples as lists, for comparison."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            out |= flatten(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = list(value) if isinstance(value, tuple) else value
    return out


def source_facts(source: Any, config: Any) -> dict[str, Any]:
    """The facts of a source that recipes and later commands need; no labels if told so."""
    facts = {
        "name": source.name,
        "shape": tuple(source.shape),
        "label_kind": source.label_kind,
        "label_dim": source.label_dim,
        "length": len(source),
        "class_names": list(source.class_names) if source.class_names else None,
    }
    if not config.data.labels:
        facts |= {"label_kind": "none", "label_dim": 0, "class_names": None}
    return facts


def load_source(spec: str, split: str) -> Any:
    """A data source, held in memory when it fits."""
    from jaxgen.data import source, sources

    return source.in_memory(sources.load(spec, split))


def make_mesh(config: Any, devices: Any = None) -> Any:
    """The mesh that the config asks for, over all devices unless given.

    Runs of before the axis `tensor` have no size for it.
    """
    from jaxgen.common import mesh

    axes = config.mesh
    return mesh.make_mesh(axes.data, axes.fsdp, axes.get("tensor", 1), devices)


def reading_mesh(config: Any) -> Any:
    """The mesh of the config as far as there are devices: a run is read on other machines, too."""
    import jax

    from jaxgen.common import mesh

    n, axes = len(jax.devices()), config.mesh
    tensor = math.gcd(n, axes.get("tensor", 1))
    fsdp = math.gcd(n // tensor, n if axes.fsdp == -1 else axes.fsdp)
    return mesh.make_mesh(n // tensor // fsdp, fsdp, tensor)


@dataclasses.dataclass
class Run:
    """A trained run, opened to be read."""

    workdir: Path
    config: Any
    facts: dict[str, Any]
    plan: Any
    mesh: Any
    verify: bool = True

    @classmethod
    def open(cls, workdir: str | Path, verify: bool = True) -> "Run":
        """Reads the config and builds its last plan.

        Raises:
          ValueError: the folder holds no run, or a config of which none can be built.
        """
        from ml_collections import ConfigDict

        from jaxgen import recipes

        saved = read_saved(workdir)
        if saved is None:
            raise ValueError(
                f"{workdir} holds no run (no config.json); --workdir is the folder given to "
                "jaxgen train"
            )
        try:
            config = ConfigDict(saved["config"])
            plan = last_stage(recipes.build(config, saved["facts"]))
            mesh = reading_mesh(config)
        except Exception as e:  # a damaged file may hold anything
            path = Path(workdir) / "config.json"
            raise ValueError(f"{path}: no run can be made of it: {e or type(e).__name__}") from e
        return cls(Path(workdir), config, saved["facts"], plan, mesh, verify)

    def held_out(self) -> Any:
        """The test split, for plans that sample from data; None when they do not.

        Raises:
          ValueError: the run was imported without data.
        """
        needs = self.plan.sample.needs
        vectors = "label" in needs and self.facts["label_kind"] == "vector"
        if "image" not in needs and not vectors:
            return None
        if self.facts["name"] == "imported":
            raise ValueError(
                f"{self.workdir} was imported without data, which it samples from; import it again "
                "with --data SOURCE"
            )
        return load_source(self.config.data.source, "test")

    def average(
        self, average: str | float | None, nimg: int | None = None, players: Sequence[str] = ()
    ) -> Any:
        """An averaging of the players that sampling reads; prints which (train.snapshot.Average).

        `raw` takes the newest checkpoint's weights.
        """
        import numpy as np

        from jaxgen.common import trees
        from jaxgen.train import snapshot, state
        from jaxgen.train.store import Store

        if average is None:
            average = self.config.average
        with contextlib.suppress(ValueError):
            average = float(average)
        whole = state.abstract(self.plan, self.mesh)
        players = players or self.plan.sample.players
        if average == "raw":
            with Store(self.workdir / "checkpoints", verify=self.verify, read_only=True) as store:
                number = store.newest()
                if number is None:
                    raise ValueError(f"no checkpoint in {store.folder}; train first")
                params = store.restore(number, "state", whole).params
            facts = {"average": f"raw weights at {number} images", "profile": "raw", "nimg": number}
            found = snapshot.Average({p: params[p] for p in players}, facts)
        else:
            with Store(self.workdir / "snapshots", verify=self.verify, read_only=True) as store:
                target = {p: whole.params[p] for p in players}
                found = snapshot.load(store, self.plan, target, average, nimg)
        bad = [n for n, x in trees.leaves(found.params).items() if not np.isfinite(x).all()]
        if bad:
            raise ValueError(
                f"{self.workdir}: the weights of {found} are not finite in {bad[:4]} and "
                f"{max(len(bad) - 4, 0)} more; take an earlier snapshot (--nimg)"
            )
        print(f"average: {found}")
        return found


def last_stage(plan: Any) -> Any:
    """A recipe gives a plan, or a list of stages; sampling reads the last one's plan."""
    return plan[-1].plan if isinstance(plan, (list, tuple)) else plan
