"""What a conversion found out, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from edgeexit.bundle.manifest import BoundaryCodec, Task
from edgeexit.convert.progress import StepTime

# Raise it when a field changes its meaning; a stored report of another schema is made anew.
REPORT_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class VariantRow:
    """One variant of one stage.

    Units: exit_max_abs and tensor_max_abs, largest absolute difference to the float network, of the
    exit's output and of every tensor that the stage gives; agreement, fraction of answers like the
    float variant's; accuracies and calibration errors, fractions (mean quality for regression).
    exit_max_rel, exit_max_abs relative to the output's largest value; same_answers, fraction of parity
    inputs on which the largest output is the network's; accuracy_lost, f32's accuracy on the calibration set
    less this one's. `accuracy_test` is None without a test set; the last three are of later reports.
    """

    name: str
    size_bytes: int
    exit_max_abs: float
    tensor_max_abs: float
    agreement: float
    accuracy_calibration: float
    accuracy_test: float | None
    temperature: float
    ece_before: float | None
    ece_after: float | None
    exit_max_rel: float | None = None
    same_answers: float | None = None
    accuracy_lost: float | None = None


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage, the boundary that it takes, and its exit. Units: macs, multiply-adds."""

    stage: int
    parameters: int
    macs: int
    boundary_bytes: int
    codecs: tuple[BoundaryCodec, ...]
    variants: tuple[VariantRow, ...]


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A whole conversion. `key` names what went in, `digest` what came out; `created` when, if known."""

    schema: int
    key: str
    name: str
    version: str
    task: Task
    digest: str
    tools: tuple[str, ...]
    calibration_samples: int
    test_samples: int
    stages: tuple[StageRow, ...]
    times: tuple[StepTime, ...]
    already_converted: bool = False
    created: str | None = None

    def found_again(self) -> ConversionReport:
        """The same report, saying that nothing had to be done."""
        return replace(self, already_converted=True)


def encode_report(report: ConversionReport) -> bytes:
    """The report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def decode_report(data: bytes) -> ConversionReport | None:
    """A stored report; None where it is not one of this schema."""
    try:
        report = msgspec.json.decode(data, type=ConversionReport)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return report if report.schema == REPORT_SCHEMA else None


def header(report: ConversionReport) -> tuple[str, ...]:
    """Column names of the table."""
    names = [variant.name for variant in report.stages[0].variants] if report.stages else []
    word = "accuracy" if report.task == "classification" else "quality"
    return (
        *("stage", "parameters", "MACs", "boundary"),
        *(f"size {name}" for name in names),
        *(f"diff {name}" for name in names),
        *(f"{word} {name}" for name in names),
        *(f"agree {name}" for name in names[1:]),
    )


def rows(report: ConversionReport) -> tuple[tuple[str, ...], ...]:
    """The table's cells: accuracy is that on the test set where there is one."""
    return tuple(
        (
            str(row.stage),
            f"{row.parameters:,}",
            shown_count(row.macs),
            shown_bytes(row.boundary_bytes),
            *(shown_bytes(variant.size_bytes) for variant in row.variants),
            *(f"{variant.tensor_max_abs:.1e}" for variant in row.variants),
            *(_fraction(_shown(variant)) for variant in row.variants),
            *(_fraction(variant.agreement) for variant in row.variants[1:]),
        )
        for row in report.stages
    )


def render(report: ConversionReport) -> str:
    """The report as plain text."""
    table = [header(report), *rows(report)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    measured = (
        f"test, {report.test_samples:,} samples"
        if report.test_samples
        else f"calibration, {report.calibration_samples:,} samples"
    )
    codecs = [
        f"  {row.stage}: "
        + ", ".join(
            f"{codec.codec} {shown_bytes(codec.payload_bytes)} (costs {_fraction(codec.quality_cost)})"
            for codec in row.codecs
        )
        for row in report.stages
    ]
    state = "already converted" if report.already_converted else _duration(report.times)
    return "\n".join(
        [
            f"{report.name} {report.version}  {report.digest[:12]}  ({state})",
            "",
            *lines,
            "",
            f"diff: largest absolute difference to the float network in any tensor; accuracy on: {measured}",
            "boundaries, as they may travel:",
            *codecs,
        ]
    )


def _shown(variant: VariantRow) -> float:
    return variant.accuracy_calibration if variant.accuracy_test is None else variant.accuracy_test


def _duration(times: tuple[StepTime, ...]) -> str:
    return f"{sum(time.duration_s for time in times):.0f} s"


def _fraction(value: float) -> str:
    return f"{value:.4f}"


def shown_bytes(count: int) -> str:
    """Decimal units, as networks count."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.2f} MB"


def shown_count(count: int) -> str:
    """A number of operations in a few characters."""
    if count < 1_000_000:
        return f"{count / 1e3:.1f} k"
    if count < 1_000_000_000:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e9:.2f} G" if count < 1_000_000_000_000 else f"{count / 1e12:,.2f} T"
