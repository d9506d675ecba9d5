"""An evaluation with its latency here, as JSON, as curves, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from edgeexit.errors import ConfigError
from edgeexit.training.report import Evaluation, ExitQuality

STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ccc}"
)


class ExitLatency(msgspec.Struct, frozen=True, kw_only=True):
    """What an exit takes here: its stage's fastest correct variant, and all stages up to it. Units: ms."""

    variant: str
    stage_ms: float
    until_ms: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle's stages on this machine, medians of single images."""

    bundle_digest: str
    machine: str
    runtime: str
    threads: int
    exits: tuple[ExitLatency, ...]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was evaluated, on what, and what came of it; `latency` is None where no bundle was given."""

    name: str
    checkpoint: str
    checkpoint_sha256: str
    data: str
    skipped_images: int
    evaluation: Evaluation
    latency: Latency | None


def measure_latency(path: Path, *, checkpoint_sha256: str, threads: int) -> Latency:
    """Run every stage of a bundle here, as a board does before it serves.

    Raises: ConfigError when the bundle is of other weights, BundleError, RunnerError, MissingExtra.
    """
    from edgeexit.bundle.store import open_bundle
    from edgeexit.runner.selection import examine_all

    bundle = open_bundle(path)
    made_of = bundle.manifest.provenance.checkpoint_sha256
    if made_of != checkpoint_sha256:
        raise ConfigError(
            f"{path} is of other weights",
            key="bundle",
            why=f"it was made of the checkpoint {str(made_of)[:12]}…, this is {checkpoint_sha256[:12]}…",
            fix="convert these weights, or evaluate those of the bundle",
        )
    found = examine_all(bundle, threads=threads)
    if found.failure is not None:
        raise found.failure
    took = {(each.stage, each.variant): each.median_ms for each in found.variants}
    exits: list[ExitLatency] = []
    until_ms = 0.0
    for k, variant in enumerate(found.chosen):
        stage_ms = took[k, variant] or 0.0
        until_ms += stage_ms
        exits.append(ExitLatency(variant=variant, stage_ms=stage_ms, until_ms=until_ms))
    return Latency(
        bundle_digest=bundle.digest,
        machine=found.machine,
        runtime=f"{found.runtime} {found.runtime_version}",
        threads=threads,
        exits=tuple(exits),
    )


def write_report(report: EvaluationReport, folder: Path) -> tuple[Path, ...]:
    """Write evaluation.json, .svg, .png and .html; where they are. Raises: MissingExtra, OSError."""
    from edgeexit.training.plots import plot_curves

    folder.mkdir(parents=True, exist_ok=True)
    json, page = folder / "evaluation.json", folder / "evaluation.html"
    curves, picture = folder / "evaluation.svg", folder / "evaluation.png"
    json.write_bytes(encode(report) + b"\n")
    for path in (curves, picture):
        plot_curves({report.name: report.evaluation}, path)
    page.write_text(render_page(report, curves.read_text(encoding="utf-8")), encoding="utf-8")
    return json, curves, picture, page


def encode(report: EvaluationReport) -> bytes:
    """As JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


def render_latency(latency: Latency) -> str:
    """For people: one line an exit."""
    lines = [f"{latency.runtime}, threads: {latency.threads}, on {latency.machine}"]
    for k, each in enumerate(latency.exits):
        lines.append(f"exit {k}: {each.until_ms:.2f} ms ({each.variant}, its stage {each.stage_ms:.2f} ms)")
    return "\n".join(lines)


def render_page(report: EvaluationReport, curves: str) -> str:
    """One HTML page that needs nothing else. `curves` is an SVG document."""
    evaluation, latency = report.evaluation, report.latency
    head = ("exit", *_quality_names(evaluation), "calibration error", "multiply-adds, M", "ms here")
    rows: list[tuple[str, ...]] = []
    for k, each in enumerate(evaluation.exits):
        took = "" if latency is None else f"{latency.exits[k].until_ms:.2f}"
        macs = f"{each.macs / 1e6:.1f}"
        rows.append((str(k), *_qualities(each), f"{each.calibration_error:.4f}", macs, took))
    points = [
        (
            f"{point.q:.2f}",
            f"{point.mean_macs / 1e6:.2f}",
            _shown(point.quality, evaluation),
            " ".join(f"{fraction:.0%}" for fraction in point.exit_fractions),
        )
        for point in evaluation.budgeted
    ]
    facts = [
        f"checkpoint {report.checkpoint} ({report.checkpoint_sha256[:12]})",
        f"data {report.data}: {evaluation.held_out_samples:,} held out for thresholds,"
        f" {evaluation.test_samples:,} for the test, {report.skipped_images:,} could not be read",
    ]
    if latency is not None:
        facts.append(f"latency: {render_latency(latency).splitlines()[0]}, one image at a time")
    svg = curves[curves.index("<svg") :]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<title>{escape(report.name)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(report.name)}</h1>\n"
        + "".join(f"<p>{escape(fact)}</p>\n" for fact in facts)
        + f"<h2>Each exit alone</h2>\n{_table(head, rows)}\n"
        + f"<h2>Quality over cost</h2>\n{svg}\n<h2>A budget over the whole set</h2>\n"
        + _table(("q", "mean multiply-adds, M", _quality_names(evaluation)[0], "share of each exit"), points)
        + "\n</body></html>\n"
    )


def _quality_names(evaluation: Evaluation) -> tuple[str, ...]:
    if evaluation.task == "regression":
        return ("mean absolute error",)
    top5 = evaluation.exits[0].top5_accuracy is not None
    return ("accuracy", "among the first five") if top5 else ("accuracy",)


def _qualities(each: ExitQuality) -> tuple[str, ...]:
    if each.accuracy is None:
        return (f"{each.mean_absolute_error:.4g}",)
    first = f"{each.accuracy:.2%}"
    return (first,) if each.top5_accuracy is None else (first, f"{each.top5_accuracy:.2%}")


def _shown(quality: float, evaluation: Evaluation) -> str:
    return f"{quality:.4g}" if evaluation.task == "regression" else f"{quality:.2%}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"
