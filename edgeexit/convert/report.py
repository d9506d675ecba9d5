"""What a conversion found out, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """A whole conversion. `key` names what went in, `digest` what came out; `created` when, if known.

    `mixture` is the variant that the bundle prefers at each stage; empty where none was sought.
    """

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
    mixture: tuple[str, ...] = ()

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


# The sides on which the cells of the table stand: words left, numbers right.
_SIDES = "rrrrlrrrrrr"


def header(report: ConversionReport) -> tuple[str, ...]:
    """Column names of the table."""
    word = "accuracy" if report.task == "classification" else "quality"
    return (
        *("stage", "parameters", "MACs", "boundary", "variant", "size"),
        *("difference", "at exit", word, "lost", "agreement"),
    )


def rows(report: ConversionReport) -> tuple[tuple[str, ...], ...]:
    """The table's cells, a row a variant: accuracy is that on the test set where there is one."""
    return tuple(cells for row in report.stages for cells in _rows(row))


def _rows(row: StageRow) -> Iterator[tuple[str, ...]]:
    stage = (str(row.stage), f"{row.parameters:,}", shown_count(row.macs), shown_bytes(row.boundary_bytes))
    for index, variant in enumerate(row.variants):
        yield (
            *(stage if index == 0 else ("",) * len(stage)),
            variant.name,
            shown_bytes(variant.size_bytes),
            f"{variant.tensor_max_abs:.1e}",
            "" if variant.exit_max_rel is None else f"{variant.exit_max_rel:.1e}",
            _fraction(_shown(variant)),
            "" if variant.accuracy_lost is None or index == 0 else _fraction(variant.accuracy_lost),
            "" if index == 0 else _fraction(variant.agreement),
        )


def render(report: ConversionReport) -> str:
    """The report as plain text."""
    lines = laid_out(header(report), rows(report), _SIDES)
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
            "difference: to the float network, largest in any tensor; at exit: relative to the exit's largest"
            " output; lost and agreement: against f32, on the calibration set",
            f"accuracy on: {measured}",
            *([f"preferred by stage: {', '.join(report.mixture)}"] if report.mixture else []),
            "boundaries, as they may travel:",
            *codecs,
        ]
    )


def laid_out(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    """Lines of a plain table; `sides` says l or r for each column."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, tuple("-" * width for width in widths), *rows):
        cells = [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


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
