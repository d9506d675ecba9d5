"""A conversion as a command: the plan on standard error, then the work, or the plan alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import msgspec
import typer

from edgeexit.cli.present import show_json
from edgeexit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgeexit.bundle.manifest import CodecName
    from edgeexit.cli.material import Material, Told
    from edgeexit.convert.lowering import LoweringName
    from edgeexit.convert.plan import ConversionPlan, LabelledSet, VariantName


# A table of 64 stages with 16 variants each is about 300 kB.
_TABLE_CAP_BYTES = 4 * 2**20


def say(*lines: str) -> None:
    """Tell what is done, on standard error."""
    for line in lines:
        typer.echo(line, err=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say of the bundle; None leaves it to the source. `name` is asked for, not made up."""

    name: str | None
    variants: tuple[VariantName, ...] | None
    codecs: tuple[CodecName, ...] | None
    back_end: LoweringName
    mixture_loss: float | None = None
    mixture_times: tuple[tuple[str, tuple[float | None, ...]], ...] = ()
    bottleneck_samples: int | None = None
    bottleneck_seconds: float | None = None

    def of(self, plan: ConversionPlan) -> ConversionPlan:
        """The plan with all of it. Raises: ConfigError."""
        samples = self.bottleneck_samples
        return replace(
            plan,
            bottleneck_samples=plan.bottleneck_samples if samples is None else samples,
            bottleneck_seconds=self.bottleneck_seconds,
            name=self.name or plan.name,
            variants=self.variants or plan.variants,
            codecs=self.codecs or plan.codecs,
            mixture_loss=self.mixture_loss,
            mixture_times=self.mixture_times,
        )


def read_wanted(name: str | None, variants: str | None, codecs: str | None, back_end: str) -> Wanted:
    """Options that hold words, read before anything is opened. Raises: ConfigError."""
    from edgeexit.cli.sources.settings import known_words
    from edgeexit.convert.codecs import codec_words
    from edgeexit.convert.lowering import LoweringName
    from edgeexit.convert.plan import VariantName

    made = variants and known_words(variants, get_args(VariantName), key="variants")
    meant = codec_words()
    sent = codecs and known_words(codecs, tuple(meant), key="codecs")
    (known,) = known_words(back_end, get_args(LoweringName), key="back_end")[:1]
    return Wanted(
        name,
        cast("tuple[VariantName, ...]", made) if made else None,
        tuple(dict.fromkeys(codec for word in sent for codec in meant[word])) if sent else None,
        cast("LoweringName", known),
    )


def read_times(path: Path) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
    """What each stage takes in each variant, of a table that `edgeexit bench --on BUNDLE --json` printed.

    Raises: DataError.
    """
    from edgeexit.cli.bench_bundle import BenchTable

    try:
        if path.stat().st_size > _TABLE_CAP_BYTES:
            raise DataError(
                f"{path} is refused",
                file=str(path),
                why=f"over {_TABLE_CAP_BYTES} bytes",
                fix="write there what edgeexit bench --on BUNDLE --json prints on the board",
            )
        table = msgspec.json.decode(path.read_bytes(), type=BenchTable)
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DataError(
            f"{path} holds no times",
            file=str(path),
            why=str(error),
            fix="write there what edgeexit bench --on BUNDLE --json prints on the board",
        ) from error
    names = dict.fromkeys(row.variant for row in table.rows)
    stages = sorted({row.stage for row in table.rows})
    taken = {(row.stage, row.variant): row.median_ms if row.passed else None for row in table.rows}
    return tuple((name, tuple(taken.get((stage, name)) for stage in stages)) for name in names)


def carry_out(
    material: Material, source: str, told: Told, wanted: Wanted, out: Path, *, as_json: bool
) -> None:
    """Show the plan, and go through with it. Raises: ConfigError, DataError, ConvertError, BundleError."""
    import numpy as np

    from edgeexit.convert.conversion import convert as make
    from edgeexit.convert.kept import KeptSteps
    from edgeexit.convert.lowering import lowering
    from edgeexit.convert.preview import encode_preview, preview, render_preview
    from edgeexit.convert.progress import ProgressLines
    from edgeexit.convert.report import encode_report, render

    plan = wanted.of(material.plan)
    calibration, test = material.calibration, material.test
    first = (
        np.zeros((1, *material.image_shape), np.float32) if calibration is None else calibration.images[:1]
    )
    shown = preview(
        material.network,
        plan,
        first,
        back_end=wanted.back_end,
        calibration_count=0 if calibration is None else len(calibration.images),
        test_count=0 if test is None else len(test.images),
        untrained=material.untrained,
        finished_steps=KeptSteps.count(out),
    )
    if told.dry_run:
        if as_json:
            show_json(encode_preview(shown).rstrip())
        else:
            typer.echo(render_preview(shown))
        return
    say(render_preview(shown), "")
    report = make(
        material.network,
        plan,
        calibration=_ready(material, source, told, calibration),
        test=test,
        out=out,
        progress=ProgressLines(say),
        lowering=lowering(wanted.back_end),
        learning=material.learning,
    )
    if as_json:
        show_json(encode_report(report).rstrip())
    else:
        typer.echo(render(report))
        typer.echo(f"\nbundle: {out}")


def _ready(material: Material, source: str, told: Told, calibration: LabelledSet | None) -> LabelledSet:
    """The calibration images, where everything is there. Raises: ConfigError."""
    if calibration is None:
        raise ConfigError(
            "no images are given",
            key="data",
            why="exits are calibrated, and variants held against each other, on images held out of training",
            fix="--data FOLDER, with one folder of images for each class; --dry-run shows the plan without",
        )
    if material.untrained and not told.random_weights:
        exits = ", ".join(map(str, material.untrained))
        recipe = source.endswith(".py")
        train = (
            f"edgeexit train {source}, or --train" if recipe else "--train, with --data imagefolder:FOLDER"
        )
        raise ConfigError(
            f"exits that were never trained: {exits}",
            key="train",
            why="their weights are drawn at random, so that their answers mean nothing",
            fix=f"{train}; --random-weights converts them as they are, to see sizes and times",
        )
    return calibration
