"""`jaxgen restore`: a photo or a folder of photos of any size, through a trained restorer."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.cli import common, values


class Result(NamedTuple):
    """A restored photo: its PSNR and that of what was restored, in dB, where there is a reference.

    error: why it was not restored, or "".
    """

    name: str
    psnr: float | None = None
    psnr_input: float | None = None
    error: str = ""


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "restore",
        "Restore a photo, or all photos below a folder (PNG, JPEG, WebP, TIFF), of any size.\n"
        "Files keep name, format, EXIF, colour profile and alpha. The exit code is 1 when some\n"
        "could not be restored; the others are.",
        "jaxgen import dncnn_sigma25.npz --out runs/dncnn\n"
        "  jaxgen restore photos --workdir runs/dncnn --out restored\n"
        "  jaxgen restore set12 --workdir runs/dncnn --out x --add_noise gaussian,sigma=25",
    )
    p.add_argument("source", metavar="IN", help="a photo or a folder")
    p.add_argument("--out", required=True, help="a file, or a folder for files of the same names")
    common.add_run_flags(p)
    how = p.add_argument_group("restoring")
    how.add_argument(
        "--sigma",
        type=float,
        metavar="LEVEL",
        help="noise level, for runs that want it, in the unit of their noise: grey levels of "
        "0..255 for Gaussian",
    )
    how.add_argument("--tile", type=int, default=256, help="pixels; 0: no tiles (default 256)")
    how.add_argument("--overlap", type=int, default=64, help="of tiles, pixels (default 64)")
    how.add_argument("--quality", type=int, default=95, help="of JPEG and WebP (default 95)")
    check = p.add_argument_group("checking")
    check.add_argument("--reference", metavar="FOLDER", help="clean photos of the same names: PSNR")
    check.add_argument(
        "--add_noise",
        metavar="NAME,KEY=VALUE",
        help="corrupt clean photos first, and print PSNR: gaussian,sigma=25,seed=0",
    )
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    common.setup_jax()
    results = list(restore_all(args))
    failed = [r for r in results if r.error]
    scored = [r for r in results if r.psnr is not None]
    if scored:
        mean = lambda name: sum(getattr(r, name) for r in scored) / len(scored)
        print(f"mean of {len(scored)}: {mean('psnr_input'):.2f} -> {mean('psnr'):.2f} dB")
    print(f"{len(results) - len(failed)} of {len(results)} photos restored to {args.out}")
    if failed:
        print(f"error: {len(failed)} photos could not be restored", file=sys.stderr)
    return 1 if failed else 0


def restore_all(args: argparse.Namespace) -> Iterator[Result]:
    """Restores one photo after the other, and prints what comes of each.

    Raises:
      ValueError: for what is wrong with all of them; of single photos, the result says it.
    """
    from jaxgen.cli import photo_files

    if args.reference and args.add_noise:
        raise ValueError("--add_noise compares with the photos before the noise: no --reference")
    noise = Noise(args.add_noise) if args.add_noise else None
    jobs, others = photo_files.jobs(args.source, args.out)
    if others:
        print(f"note: {others} files that are no photos are left alone")
    restorer = Restorer(args)
    for name, source, target in jobs:
        try:
            photo = photo_files.read(source)
            if photo.pages > 1:
                restorer.note("of a JPEG of several pictures, the first is kept", name)
            clean = None
            if args.reference:
                clean = reference(Path(args.reference), name, photo.pixels.shape)
            noisy = photo.pixels
            if noise is not None:
                clean, noisy = photo.pixels, noise(name, photo.pixels)
            pixels = restorer(noisy, name)
            photo_files.write(target, photo, pixels, args.quality)
            yield scored(name, pixels, noisy, clean)
        except (ValueError, OSError) as e:
            print(f"error: {e}", file=sys.stderr)
            yield Result(name, error=str(e))


def scored(name: str, pixels: Any, noisy: Any, clean: Any) -> Result:
    """The PSNR of 8-bit images, where there is a clean one, printed."""
    from jaxgen.metrics.psnr import psnr_8bit

    if clean is None:
        print(name)
        return Result(name)
    after, before = (float(psnr_8bit(x[None], clean[None])[0]) for x in (pixels, noisy))
    print(f"{name}: {before:.2f} -> {after:.2f} dB")
    return Result(name, after, before)


def reference(folder: Path, name: str, shape: tuple[int, ...]) -> Any:
    """The pixels of the clean photo of a name.

    Raises:
      ValueError: none there, or one of another shape.
    """
    from jaxgen.cli import photo_files

    path = folder / name if folder.is_dir() else folder
    if not path.is_file():
        raise ValueError(f"--reference: there is no photo {path}")
    pixels = photo_files.read(path).pixels
    if pixels.shape != shape:
        raise ValueError(f"--reference {path}: {pixels.shape}, and the photo is {shape}")
    return pixels


class Noise:
    """`--add_noise`: a corruption of jaxgen/noise/operators.py; a photo's depends on its name."""

    def __init__(self, text: str):
        from jaxgen.recipes import common as recipes

        kind, settings = values.parse_named("--add_noise", text)
        self.seed = settings.pop("seed", 0)
        if not isinstance(self.seed, int):
            raise ValueError(f"--add_noise: seed is a whole number, got {self.seed!r} in {text!r}")
        self.corruption = recipes.corruption(kind, **settings)

    def __call__(self, name: str, pixels: Any) -> Any:
        """Corrupted float32 images (h, w, c) of uint8 ones.

        Raises:
          ValueError: a corruption that gives no image of the same size.
        """
        import jax
        import numpy as np

        from jaxgen.common import rng, units

        key = rng.fold(jax.random.key(self.seed), "noise", name)
        clean = units.from_uint8(jax.numpy.asarray(pixels))[None]
        noisy = self.corruption.corrupt(key[None], clean)
        if noisy.shape != clean.shape:
            raise ValueError(f"--add_noise: images {clean.shape} become {noisy.shape}, no images")
        return np.asarray(noisy[0])


class Restorer:
    """A run's restorer for pixels (h, w, 1 or 3) of any size.

    Args:
      args: the command's.
    Raises:
      ValueError: a run that restores nothing, a level too many or too few, sizes that do not fit.
    """

    def __init__(self, args: argparse.Namespace):
        import jax
        import jax.numpy as jnp

        from jaxgen.cli.tiling import Tiler

        run = common.Run.open(args.workdir, verify=not args.no_verify)
        if "restore" not in run.plan.exports:
            raise ValueError(
                f"{args.workdir}: recipe {run.config.recipe!r} restores no photos; --workdir is a "
                "run of recipe denoise, or of imported DnCNN weights"
            )
        export = run.plan.exports["restore"]
        weights = run.average(args.average, args.nimg, export.players).params
        self.channels, self.level = run.facts["shape"][2], args.sigma
        if self.channels not in (1, 3):
            raise ValueError(f"{args.workdir}: restores images of {self.channels} channels")
        self.noted: set[str] = set()
        frozen = dict(run.plan.frozen)
        restore = lambda params, x, level: export.fn(params["players"], params["frozen"])(x, level)
        params = {"players": weights, "frozen": frozen}
        x = jax.ShapeDtypeStruct((1, 32, 32, self.channels), jnp.float32)
        level = None if self.level is None else jax.ShapeDtypeStruct((1,), jnp.float32)
        try:
            jax.eval_shape(restore, params, x, level)
        except ValueError as e:
            raise ValueError(f"{args.workdir}: {e} (--sigma)") from e
        self.tiler = Tiler(
            restore,
            params,
            run.mesh,
            tile=args.tile,
            overlap=args.overlap,
            multiple=multiple(run),
            per_device=1 if jax.default_backend() == "cpu" else 8,
        )

    def __call__(self, pixels: Any, name: str) -> Any:
        """Restored uint8 pixels of uint8 ones, or of float32 ones in [-1, 1] and beyond."""
        import numpy as np

        from jaxgen.common import units

        x = np.asarray(units.from_uint8(pixels)) if pixels.dtype == np.uint8 else pixels
        if x.shape[-1] == self.channels:
            return units.to_uint8(self.tiler(x[None], self.level)[0])
        if self.channels == 3:
            self.note("grey photos go through the network for colours as grey colours", name)
            done = self.tiler(np.repeat(x[None], 3, -1), self.level)[0]
            return units.to_uint8(done.mean(-1, keepdims=True))
        self.note("colours go through the network for grey images one by one", name)
        done = self.tiler(np.moveaxis(x, -1, 0)[..., None], self.level)
        return units.to_uint8(np.moveaxis(done[..., 0], 0, -1))

    def note(self, text: str, name: str) -> None:
        """Prints it at the first photo that it is true of."""
        if text not in self.noted:
            self.noted.add(text)
            print(f"note: {text} ({name})")


def multiple(run: common.Run) -> int:
    """Of how many pixels the run's network moves its result with the image."""
    from jaxgen.recipes import denoise_setup

    if run.config.recipe != "denoise":
        return 1
    network = denoise_setup.Setup.of(run.config, run.facts).network()
    return getattr(network, "multiple", 1)
