"""`edgeexit bench --on BUNDLE`: every variant of every stage, proved and timed on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeexit.cli.bench_codecs import CodecRow, rendered, time_codecs

if TYPE_CHECKING:
    from rich.table import Table

    from edgeexit.bundle.store import Bundle
    from edgeexit.runner.selection import Examination


class BenchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of one stage here. Units: fractions, milliseconds of one run; None: it did not come so far.

    `why` is None for what reproduces its golden vectors, and for what was not examined (`passed` is None).
    """

    stage: int
    variant: str
    precision: str
    size_bytes: int
    passed: bool | None
    why: str | None
    max_abs_diff: float | None
    tolerance: float | None
    agreement: float | None
    median_ms: float | None
    best_ms: float | None
    chosen: bool


class BenchTable(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle on this machine. `failure` says why it cannot run here; None when it can.

    `beside` is the runtime of ONNX variants, where TFLite ones have another.
    """

    bundle: str
    digest: str
    machine: str
    runtime: str
    runtime_version: str
    beside: str | None
    threads: int
    elapsed_ms: float
    note: str | None
    failure: str | None
    rows: tuple[BenchRow, ...]
    codecs: tuple[CodecRow, ...] = ()


def bench_bundle(path: Path, *, threads: int, as_json: bool) -> None:
    """Verify a bundle, examine it, and print what was found.

    Raises: BundleError, MissingExtra, and the RunnerError of a stage that cannot run, after its table.
    """
    from edgeexit.bundle.store import open_bundle
    from edgeexit.cli.present import show_json
    from edgeexit.runner.selection import examine_all

    bundle = open_bundle(path)
    found = examine_all(bundle, threads=threads)
    table = tabulate(bundle, found)
    if found.failure is None:
        codecs = time_codecs(bundle, found.chosen, threads=threads)
        table = msgspec.structs.replace(table, codecs=codecs)
    if as_json:
        show_json(msgspec.json.encode(table))
    else:
        from rich.console import Console

        console = Console()
        console.print(_rendered(table))
        if table.codecs:
            console.print(rendered(table.codecs))
        if table.note is not None:
            console.print(table.note)
    if found.failure is not None:
        raise found.failure


def tabulate(bundle: Bundle, found: Examination) -> BenchTable:
    """The findings in the order of the bundle, with what its manifest says of each variant."""
    reports = {(report.stage, report.variant): report for report in found.variants}
    rows: list[BenchRow] = []
    for k, stage in enumerate(bundle.manifest.stages):
        chosen = found.chosen[k] if k < len(found.chosen) else None
        for variant in stage.variants:
            report = reports.get((k, variant.name))
            rows.append(
                BenchRow(
                    stage=k,
                    variant=variant.name,
                    precision=variant.precision,
                    size_bytes=variant.blob.size_bytes,
                    passed=report.passed if report else None,
                    why=report.why if report else None,
                    max_abs_diff=report.max_abs_diff if report else None,
                    tolerance=report.tolerance if report else None,
                    agreement=report.agreement if report else None,
                    median_ms=report.median_ms if report else None,
                    best_ms=report.best_ms if report else None,
                    chosen=variant.name == chosen,
                )
            )
    return BenchTable(
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        digest=bundle.digest,
        machine=found.machine,
        runtime=found.runtime,
        runtime_version=found.runtime_version,
        beside=found.beside,
        threads=found.threads,
        elapsed_ms=found.elapsed_ms,
        note=found.note,
        failure=None if found.failure is None else str(found.failure),
        rows=tuple(rows),
    )


def _rendered(bench: BenchTable) -> Table:
    from rich.table import Table

    and_beside = "" if bench.beside is None else f" and {bench.beside}"
    table = Table(
        title=f"{bench.bundle} ({bench.digest[:12]}) on {bench.machine}:"
        f" {bench.runtime} {bench.runtime_version}{and_beside}, threads: {bench.threads}"
    )
    # The best times decide, being the least disturbed; the median is what a run usually takes.
    columns = ("stage", "variant", "bytes", "golden vectors", "difference", "best ms", "median ms", "chosen")
    for column in columns:
        left = column in ("variant", "golden vectors", "chosen")
        table.add_column(column, justify="left" if left else "right")
    stage = None
    for row in bench.rows:
        table.add_row(
            "" if row.stage == stage else str(row.stage),
            row.variant,
            f"{row.size_bytes:,}",
            {True: "pass", False: row.why or "fail", None: "not examined"}[row.passed],
            "" if row.max_abs_diff is None else f"{row.max_abs_diff:.2g}",
            "" if row.best_ms is None else f"{row.best_ms:.3f}",
            "" if row.median_ms is None else f"{row.median_ms:.3f}",
            "chosen" if row.chosen else "",
        )
        stage = row.stage
    return table
