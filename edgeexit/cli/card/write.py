"""A model card: one page that says what a bundle is, and how well each part of it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from msgspec import UnsetType

from edgeexit.bundle.manifest import Manifest
from edgeexit.bundle.store import Bundle
from edgeexit.cli.card import figures
from edgeexit.convert.report import ConversionReport
from edgeexit.replay.page import Section, Table, Tile, page


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of stages somewhere: `where` in words. Units: best_ms, by stage and variant."""

    where: str
    best_ms: Mapping[tuple[int, str], float] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()


def card_page(
    bundle: Bundle, *, report: ConversionReport | None = None, measured: Measured | None = None
) -> str:
    """The whole page, self-contained: nothing is fetched when it is read. Raises: MissingExtra."""
    manifest = bundle.manifest
    subtitle = f"{manifest.provenance.network} · version {manifest.version}, serial {manifest.serial}"
    return page(
        manifest.name,
        subtitle,
        tiles=_tiles(bundle, measured),
        sections=[*_sections(bundle, report, measured)],
        footer=f"Bundle {bundle.digest}. Figures are its manifest's, or from the source named.",
    )


def _tiles(bundle: Bundle, measured: Measured | None) -> list[Tile]:
    manifest = bundle.manifest
    first, last = manifest.exits[0], manifest.exits[-1]
    macs = [stage.macs for stage in manifest.stages]
    smallest = sum(min(each.blob.size_bytes for each in stage.variants) for stage in manifest.stages)
    word = "right" if manifest.task == "classification" else "quality"
    tiles = [
        Tile("exits", str(manifest.stage_count), f"{len(manifest.labels)} labels" if manifest.labels else ""),
        Tile("at the last exit", _share(last.accuracy_float), f"{word}, on calibration data"),
        Tile("at the first exit", _share(first.accuracy_float), f"for {macs[0] / sum(macs):.0%} of the work"),
        Tile("smallest variants", f"{smallest / 1e6:.2f} MB", "all stages together"),
        Tile("multiply-adds", f"{sum(macs) / 1e6:,.1f} M", f"{_parameters(manifest) / 1e6:.2f} M parameters"),
    ]
    if measured is not None and measured.chosen:
        pairs = [(k, name) for k, name in enumerate(measured.chosen)]
        if all(pair in measured.best_ms for pair in pairs):
            total_ms = sum(measured.best_ms[pair] for pair in pairs)
            tiles.append(Tile("all stages", f"{total_ms:.1f} ms", measured.where))
    return tiles


def _sections(
    bundle: Bundle, report: ConversionReport | None, measured: Measured | None
) -> Iterator[Section]:
    manifest = bundle.manifest
    variant = figures.variant_names(manifest)[0]
    samples = manifest.exits[0].calibrations[0].samples
    yield Section(
        "Exits",
        f"What each exit is worth, and what it costs to get there. Accuracies are on {samples:,} calibration "
        "samples, which were held out of training; each variant was measured with its own answers.",
        plots=(figures.plot_exits(manifest),),
        table=_exits(manifest, report),
    )
    yield Section(
        "Calibration",
        f"A policy stops where the score promises enough. Above: how often an answer of variant {variant} is "
        "right, against its score; below: what a score at exit 0 promises of the deeper exits.",
        plots=(figures.plot_reliability(manifest, variant), figures.plot_promise(manifest, variant)),
        table=None if report is None else _calibration_errors(report),
    )
    yield Section(
        "Stages",
        "Files of each stage. A board takes the fastest variant that reproduces the golden vectors there.",
        plots=(figures.plot_sizes(manifest),),
        table=_stages(manifest),
    )
    if measured is not None and measured.best_ms:
        yield Section(
            "Latency",
            f"Best time of one run of each stage, on {measured.where}.",
            plots=(figures.plot_latency(manifest, measured.best_ms),),
        )
    yield Section(
        "Boundaries",
        "What offloading sends, as each codec packs it, and what it costs in quality at the last exit. Where"
        " the size depends on the image, the mean, and what 95 of 100 images stay below.",
        plots=(figures.plot_boundaries(manifest),),
        table=_boundaries(manifest),
    )
    if manifest.risk_controls:
        yield Section(
            "Guarantees",
            "Stop at the first exit whose score reaches its threshold: the risk named stays in its bound.",
            table=_guarantees(manifest),
        )
    yield Section("Where it comes from", table=_origin(bundle, report))


def _exits(manifest: Manifest, report: ConversionReport | None) -> Table:
    names = figures.variant_names(manifest)
    tested = report is not None and report.test_samples > 0
    columns = ["exit", "float", *names, "temperature", "multiply-adds so far"]
    if tested:
        columns[2 + len(names) : 2 + len(names)] = [f"{name}, test set" for name in names]
    rows, macs = [], 0
    for k, exit_ in enumerate(manifest.exits):
        macs += manifest.stages[k].macs
        by_name = {each.variant: each for each in exit_.calibrations}
        on_test: dict[str, float | None] = {}
        if report is not None and k < len(report.stages):
            on_test = {row.name: row.accuracy_test for row in report.stages[k].variants}
        rows.append(
            (
                str(k),
                _share(exit_.accuracy_float),
                *(_share(by_name[name].accuracy) if name in by_name else "–" for name in names),
                *((_share(on_test.get(name)) for name in names) if tested else ()),
                f"{exit_.calibrations[0].temperature:.3f}",
                f"{macs / 1e6:,.1f} M",
            )
        )
    return Table(tuple(columns), tuple(rows), emphasis=False)


def _calibration_errors(report: ConversionReport) -> Table | None:
    rows = tuple(
        (f"exit {row.stage}, {each.name}", f"{each.ece_before:.4f}", f"{each.ece_after:.4f}")
        for row in report.stages
        for each in row.variants
        if each.ece_before is not None and each.ece_after is not None
    )
    columns = ("expected calibration error", "without temperature", "with it")
    return Table(columns, rows, emphasis=False) if rows else None


def _stages(manifest: Manifest) -> Table:
    rows = tuple(
        (
            f"{k}, {each.name}",
            f"{stage.parameters:,}",
            f"{stage.macs / 1e6:,.1f} M",
            f"{each.blob.size_bytes / 1e3:,.1f} kB",
            f"{each.parity_max_abs:.2g}",
            ", ".join(each.runtimes),
        )
        for k, stage in enumerate(manifest.stages)
        for each in stage.variants
    )
    columns = ("stage, variant", "parameters", "multiply-adds", "size", "largest difference", "runtimes")
    return Table(columns, rows, emphasis=False)


def _boundaries(manifest: Manifest) -> Table:
    rows = tuple(
        (
            f"{'input' if b == 0 else b}, {each.codec}",
            ", ".join(f"{spec.name} {' × '.join(map(str, spec.shape))}" for spec in boundary.tensors),
            f"{each.payload_bytes:,}",
            "" if isinstance(each.p95_bytes, UnsetType) else f"{each.p95_bytes:,}",
            f"{each.quality_cost * 100:.2f}",
        )
        for b, boundary in enumerate(manifest.boundaries)
        for each in boundary.codecs
    )
    return Table(
        ("boundary, codec", "tensors", "bytes (mean)", "95 of 100 below", "points lost"), rows, emphasis=False
    )


def _guarantees(manifest: Manifest) -> Table:
    rows = tuple(
        (
            control.variant,
            f"{control.risk} ≤ {control.epsilon:g}, confidence {1 - control.delta:g}",
            ", ".join(f"{value:.3f}" if value <= 1.0 else "never" for value in control.thresholds),
            f"{control.empirical_risk:.4f}",
            f"{control.samples:,}",
        )
        for control in manifest.risk_controls
    )
    return Table(("variant", "guarantee", "thresholds by exit", "risk seen", "samples"), rows, emphasis=False)


def _origin(bundle: Bundle, report: ConversionReport | None) -> Table:
    manifest, made = bundle.manifest, bundle.manifest.provenance
    how = manifest.preprocessing
    signature = "none" if bundle.signature is None else f"key {bundle.signature.key_name}"
    rows = [
        ("network", made.network),
        ("input", f"{how.height} × {how.width}, {how.color}, {how.layout}"),
        ("data", made.dataset),
        ("licence", made.licence),
        ("signature", signature),
        ("bundle", bundle.digest),
    ]
    for name, digest in (
        ("weights", made.weights_sha256),
        ("checkpoint", made.checkpoint_sha256),
        ("recipe", made.recipe_sha256),
        ("calibration data", made.data_sha256),
    ):
        if isinstance(digest, str):
            rows.append((f"{name}, SHA-256", digest))
    rows.extend(("made with" if i == 0 else "", tool) for i, tool in enumerate(made.tools))
    if report is not None and report.created is not None:
        rows.append(("converted", report.created))
    return Table(("", ""), tuple(rows), emphasis=False)


def _parameters(manifest: Manifest) -> int:
    return sum(stage.parameters for stage in manifest.stages)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
