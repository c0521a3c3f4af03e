"""The keys that every run has, and the argument after the colon of `file.py:arg,arg`."""

import ml_collections


def base(recipe: str, source: str) -> ml_collections.ConfigDict:
    """A run of `recipe` on data `source`. Durations are images: "50k", "1.5M" or a plain number."""
    c = ml_collections.ConfigDict()
    c.recipe = recipe
    c.seed = 0
    c.dtype = "auto"  # compute type: auto is bfloat16 on accelerators, float32 on CPU
    c.images = "1M"  # length of training
    c.batch = 64  # global batch
    c.microbatches = 1  # parts a batch is processed in, to save memory
    c.log_every = "10k"
    c.checkpoint_every = "100k"  # whole state, to resume
    c.snapshot_every = "50k"  # averaged weights, for post-hoc EMA; kept for good
    c.sample_every = "0"  # a grid of samples of the running average; 0 is never
    c.keep_checkpoints = 2
    c.snapshot_dtype = "float32"  # or float16
    c.max_skips = 20  # non-finite updates in a row before the run stops

    c.data = ml_collections.ConfigDict()
    c.data.source = source
    c.data.labels = True  # False trains without the labels that the data has
    c.data.latents = False  # images are moments (h, w, 2 c) of an autoencoder (recipe edm2)
    c.data.limit = 0  # images to train on, of every class its share; 0 takes all. Scores take all
    c.data.hflip = False  # mirror every other image at random (score networks)
    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = -1  # devices that share the batch; -1 takes all
    c.mesh.fsdp = 1  # devices that share the parameters too
    c.mesh.tensor = 1  # devices that share the channels of attention and residual blocks
    c.mesh.rules = ()  # (regex, value) in front of the networks' own, see common/sharding.py
    c.averages = ml_collections.ConfigDict()
    c.averages.power = (0.05, 0.10)  # tracked power-function lengths (sigma_rel)
    c.averages.halflife = "0"  # of an exponential average, in images; 0 tracks none
    c.average = "0.10"  # length or profile that sample and evaluate use unless told otherwise
    c.features = "auto"  # feature net of the metrics

    c.watchdog = ml_collections.ConfigDict()  # a step that takes too long is a hang
    c.watchdog.factor = 20.0  # times the median step
    c.watchdog.seconds = 300.0  # and never sooner than this; 0 watches nothing
    c.watchdog.slow_seconds = 3600.0  # for compiling, saving, samples
    c.watchdog.exit = False  # end the run (exit code 75) so that a scheduler starts it again
    return c


def sampler(steps: int = 18, **changes: float | str) -> ml_collections.ConfigDict:
    """The sampler of a score network, by default EDM's deterministic one.

    solver: a name of jaxgen/samplers/solvers.py; S_churn to S_noise are for "edm", eta for "ddim".
    grid: edm, geometric, vp, ve or iddpm.
    """
    c = ml_collections.ConfigDict()
    c.solver = "heun"
    c.grid = "edm"
    c.steps = steps
    c.sigma_min = 0.002
    c.sigma_max = 80.0
    c.rho = 7.0
    c.S_churn = 0.0
    c.S_min = 0.0
    c.S_max = 1e9
    c.S_noise = 1.0
    c.eta = 0.0
    c.update(changes)
    return c


def parse_arg(
    arg: str, **defaults: bool | str | int | float | tuple[str, ...]
) -> ml_collections.ConfigDict:
    """`"debug,width=64"` over typed defaults; of a tuple of words the first is the default.

    A word may stand alone: with size=("s", "m"), `"m"` is `"size=m"`.

    Raises:
      ValueError: unknown name or a value of another type.
    """
    choices = {n: v for n, v in defaults.items() if isinstance(v, tuple)}
    found = ml_collections.ConfigDict(
        {"debug": False, **{n: v[0] if n in choices else v for n, v in defaults.items()}}
    )
    for part in filter(None, (arg or "").split(",")):
        name, _, value = part.partition("=")
        owner = [n for n, words in choices.items() if part in words]
        if owner:
            name, value = owner[0], part
        if name not in found:
            words = [w for v in choices.values() for w in v]
            known = sorted({*found.keys(), *words} - set(choices))
            raise ValueError(f"unknown config argument {name!r}; known are {known}")
        kind = type(found[name])
        if name in choices and value not in choices[name]:
            raise ValueError(
                f"config argument {name!r} is one of {list(choices[name])}, got {value!r}"
            )
        if kind is bool:
            if value.lower() not in ("", "true", "false", "1", "0"):
                raise ValueError(f"config argument {name!r} is a switch, got {value!r}")
            found[name] = value.lower() in ("", "true", "1")
        else:
            try:
                found[name] = kind(value)
            except ValueError as e:
                raise ValueError(
                    f"config argument {name!r} takes {kind.__name__}, got {value!r}"
                ) from e
    return found


def debug(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Run keys of a debug run: seconds long, everything happens once or twice."""
    c.images = "64"
    c.batch = 16
    c.log_every = "16"
    c.checkpoint_every = "32"
    c.snapshot_every = "32"
    return c
