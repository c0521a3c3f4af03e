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
    c.data.hflip = False  # mirror every other image at random (score networks)
    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = -1  # devices that share the batch; -1 takes all
    c.mesh.fsdp = 1  # devices that share the parameters too
    c.averages = ml_collections.ConfigDict()
    c.averages.power = (0.05, 0.10)  # tracked power-function lengths (sigma_rel)
    c.averages.halflife = 0.0  # images; 0 tracks none
    c.average = 0.10  # the length that sample and evaluate use unless told otherwise
    c.features = "auto"  # feature net of the metrics
    return c


def parse_arg(arg: str, **defaults: bool | str | int | float) -> ml_collections.ConfigDict:
    """`"debug,width=64"` over typed defaults; unknown names are errors.

    Raises:
      ValueError: unknown name or a value of another type.
    """
    found = ml_collections.ConfigDict({"debug": False, **defaults})
    for part in filter(None, (arg or "").split(",")):
        name, _, value = part.partition("=")
        if name not in found:
            raise ValueError(f"unknown config argument {name!r}; known are {sorted(found.keys())}")
        kind = type(found[name])
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
