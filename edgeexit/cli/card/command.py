"""`edgeexit bundle card`: a bundle described on one page, with plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command
from edgeexit.errors import DataError

if TYPE_CHECKING:
    from edgeexit.bundle.store import Bundle
    from edgeexit.cli.card.write import Measured
    from edgeexit.convert.report import ConversionReport
    from edgeexit.runner.report import SelectionReport

# A report of 64 stages is far smaller.
_CAP_BYTES = 16 * 2**20


@command
def card(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("card.html"),
    measure: Annotated[
        bool, typer.Option("--measure", help="Time every stage on this machine, in every variant.")
    ] = False,
    selection: Annotated[
        Path | None,
        typer.Option(help="Times measured elsewhere: selection.json of a device's state folder."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="The conversion's report; without it, the one beside the bundle, if it is there."),
    ] = None,
) -> None:
    """Write a model card: one HTML page that says what the bundle is and how well it does."""
    from edgeexit.bundle.store import open_bundle
    from edgeexit.cli.card.write import card_page
    from edgeexit.replay.page import write_page

    opened = open_bundle(bundle)
    page = card_page(
        opened,
        report=_report(opened, report),
        measured=_measured(opened, measure=measure, selection=selection),
    )
    write_page(out, page)
    typer.echo(f"card: {out}")


def _report(bundle: Bundle, place: Path | None) -> ConversionReport | None:
    """The conversion's report, if it is of this bundle. Raises: DataError where one was named and is not."""
    from edgeexit.convert.report import decode_report

    path = bundle.path.with_name(f"{bundle.path.name}.report.json") if place is None else place
    found = None
    if place is not None or path.is_file():
        with path.open("rb") as stream:
            found = decode_report(stream.read(_CAP_BYTES))
    if found is not None and found.digest == bundle.digest:
        return found
    if place is not None:
        raise DataError(
            f"{place} is not the report of this bundle",
            file=str(place),
            why="it is of another one, or no report of a conversion",
            fix="give the report that stands beside the bundle, or leave --report out",
        )
    return None


def _measured(bundle: Bundle, *, measure: bool, selection: Path | None) -> Measured | None:
    """Times of stages, measured now or read; None where neither was asked for.

    Raises: DataError, RunnerError, MissingExtra.
    """
    if selection is not None:
        return _of_selection(_read_selection(bundle, selection))
    if not measure:
        return None
    from edgeexit.runner.selection import open_verified

    runner, found = open_verified(bundle)
    runner.close()
    return _of_selection(found)


def _of_selection(found: SelectionReport) -> Measured:
    from edgeexit.cli.card.write import Measured

    best_ms = {
        (each.stage, each.variant): each.best_ms
        for each in found.variants
        if each.passed and each.best_ms is not None
    }
    key = found.key
    threads = "1 thread" if key.threads == 1 else f"{key.threads} threads"
    where = f"{key.machine}, {key.runtime} {key.runtime_version}, {threads}"
    return Measured(where, best_ms, found.chosen)


def _read_selection(bundle: Bundle, path: Path) -> SelectionReport:
    import msgspec

    from edgeexit.runner.report import SelectionReport

    with path.open("rb") as stream:
        data = stream.read(_CAP_BYTES)
    try:
        found = msgspec.json.decode(data, type=SelectionReport)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DataError(
            f"{path} holds no selection of variants",
            file=str(path),
            why=str(error),
            fix="give the selection.json that a device of this bundle keeps, or leave --selection out",
        ) from error
    if found.key.bundle_digest != bundle.digest:
        raise DataError(
            f"{path} is of another bundle",
            file=str(path),
            why=f"of {found.key.bundle_digest[:12]}, this one is {bundle.digest[:12]}",
            fix="give the selection.json that a device of this bundle keeps, or leave --selection out",
        )
    return found
