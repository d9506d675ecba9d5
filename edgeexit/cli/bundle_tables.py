"""A bundle as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UnsetType
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from edgeexit.bundle.manifest import Manifest, RiskControl
from edgeexit.bundle.store import Bundle


def tables(bundle: Bundle) -> Iterator[RenderableType]:
    """What the bundle is, its stages, its exits, its boundaries, and the guarantees it carries."""
    manifest = bundle.manifest
    yield _summary(bundle)
    yield _stages(manifest)
    yield _exits(manifest)
    yield _boundaries(manifest)
    if manifest.risk_controls:
        yield _guarantees(manifest)


def _summary(bundle: Bundle) -> Table:
    manifest, provenance = bundle.manifest, bundle.manifest.provenance
    size_bytes = sum(blob.size_bytes for blob in manifest.blobs())
    table = Table(box=None, show_header=False)
    for row in (
        ("bundle", f"{manifest.name} {manifest.version}, serial {manifest.serial}"),
        ("digest", bundle.digest),
        ("task", f"{manifest.task}, {len(manifest.labels)} labels"),
        ("network", provenance.network),
        ("data", f"{provenance.dataset} ({provenance.licence})"),
        ("made with", ", ".join(provenance.tools)),
        ("size", f"{size_bytes / 1e6:.2f} MB in {len(manifest.blobs())} files, all digests verified"),
    ):
        table.add_row(*row)
    return table


def _stages(manifest: Manifest) -> Table:
    table = Table(title="stages; parity is the largest difference from the network")
    for column in ("stage", "parameters", "MACs", "variant", "bytes", "parity", "runtimes"):
        # Where a terminal is narrow, the names of runtimes are broken, and no number loses a digit.
        table.add_column(
            column,
            justify="left" if column in ("variant", "runtimes") else "right",
            no_wrap=column != "runtimes",
            overflow="fold",
        )
    for index, stage in enumerate(manifest.stages):
        for row, variant in enumerate(stage.variants):
            first = ("", "", "")
            if row == 0:
                first = (str(index), f"{stage.parameters:,}", f"{stage.macs / 1e6:,.1f} M")
            table.add_row(
                *first,
                variant.name,
                f"{variant.blob.size_bytes:,}",
                f"{variant.parity_max_abs:.2g}",
                "\n".join(variant.runtimes),
            )
    return table


def _exits(manifest: Manifest) -> Table:
    table = Table(title="exits, on calibration data")
    for column in ("exit", "float accuracy", "variant", "accuracy", "temperature", "samples"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for index, exit_ in enumerate(manifest.exits):
        for row, calibration in enumerate(exit_.calibrations):
            first = (str(index), f"{exit_.accuracy_float:.4f}") if row == 0 else ("", "")
            table.add_row(
                *first,
                calibration.variant,
                f"{calibration.accuracy:.4f}",
                f"{calibration.temperature:.3f}",
                f"{calibration.samples:,}",
            )
    return table


def _boundaries(manifest: Manifest) -> Table:
    table = Table(title="boundaries: what offloading sends")
    for column in ("boundary", "tensors", "codec", "bytes", "quality cost"):
        table.add_column(column, justify="left" if column in ("tensors", "codec") else "right")
    for index, boundary in enumerate(manifest.boundaries):
        for row, codec in enumerate(boundary.codecs):
            tensors = ", ".join(str(tensor) for tensor in boundary.tensors)
            first = (str(index), tensors) if row == 0 else ("", "")
            size = f"{codec.payload_bytes:,}"
            if not isinstance(codec.p95_bytes, UnsetType):
                size = f"mean {size}, p95 {codec.p95_bytes:,}"
            table.add_row(*first, codec.codec, size, f"{codec.quality_cost:.4f}")
    return table


def _risk(control: RiskControl) -> str:
    if isinstance(control.tolerance, UnsetType):
        return control.risk
    return f"{control.risk} by over {control.tolerance:g}"


def _guarantees(manifest: Manifest) -> Table:
    table = Table(
        title="early exits with a guarantee: stop at the first exit whose score reaches its threshold"
    )
    for column in ("variant", "guarantee", "method", "thresholds", "risk seen"):
        table.add_column(column, justify="right" if column == "risk seen" else "left")
    # All controls of a bundle mostly come from one held-out set: named once, below, and not in every row.
    data = {f"{control.data}, n = {control.samples:,}": None for control in manifest.risk_controls}
    marks = {name: f" [{number}]" if len(data) > 1 else "" for number, name in enumerate(data, start=1)}
    table.caption = "\n".join(f"on{escape(marks[name])} {escape(name)}" for name in data)
    for control in manifest.risk_controls:
        mark = marks[f"{control.data}, n = {control.samples:,}"]
        table.add_row(
            control.variant,
            f"{_risk(control)} ≤ {control.epsilon:g} with confidence {1 - control.delta:g}",
            control.method,
            ", ".join(f"{value:.3f}" if value <= 1.0 else "never" for value in control.thresholds),
            escape(f"{control.empirical_risk:.4f}{mark}"),
        )
    return table
