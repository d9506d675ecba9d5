"""`edgeexit flash`: a bundle, its configuration and its unit onto boards, switched in one step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json
from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    from edgeexit.deploy.board import Board, BoardFile
    from edgeexit.deploy.flash import FlashReport

UNIT_NAME = "edgeexit-device.service"


@command
def flash(
    words: Annotated[
        list[str], typer.Argument(metavar="[USER@HOST[:PORT]]... BUNDLE", help="Boards, then the bundle.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Flash a folder instead: a mounted card, an image, a demo.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The daemon's configuration; without it the board keeps its own.")
    ] = None,
    restart: Annotated[bool, typer.Option(help="Have systemd take up the new bundle.")] = True,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Replace a bundle by one with a lower serial.")
    ] = False,
    key: Annotated[Path | None, typer.Option(help="SSH private key, instead of your own ones.")] = None,
    known_hosts: Annotated[Path | None, typer.Option(help="Known hosts, instead of your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one report a line as JSON.")] = False,
) -> None:
    """Put a bundle onto boards. A second flash changes nothing; an interrupted one leaves the old bundle."""
    import msgspec

    from edgeexit.bundle.store import open_bundle
    from edgeexit.deploy.flash import flash as put

    hosts = words[:-1]
    if (root is None) == (not hosts):
        raise ConfigError(
            "nothing to flash" if root is None else "a folder and boards cannot be flashed together",
            key="target",
            why="either boards are named before the bundle, or --root names a folder or a mounted card",
            fix="edgeexit flash pi@raspberrypi.local bundle/   or   edgeexit flash --root FOLDER bundle/",
        )
    bundle = open_bundle(Path(words[-1]))
    files = board_files(config)
    for board_name in hosts or [str(root)]:
        with _board(board_name if hosts else None, root, key, known_hosts) as board, _bar(as_json) as shown:
            report = put(
                bundle,
                board,
                files=files,
                unit=UNIT_NAME if restart else None,
                allow_older=allow_older,
                progress=shown,
            )
        if as_json:
            show_json(msgspec.json.encode(report))
        else:
            typer.echo(sentence(report))


def board_files(config: Path | None) -> list[BoardFile]:
    """What goes along with a bundle: the configuration and the unit. Raises: ConfigError."""
    from edgeexit.board.files import board_file
    from edgeexit.deploy import layout
    from edgeexit.deploy.board import BoardFile
    from edgeexit.device.config import load_config

    unit = BoardFile(layout.UNIT, board_file(f"systemd/{UNIT_NAME}").read_bytes())
    if config is None:
        template = board_file("provision/device.toml").read_bytes()
        return [BoardFile(layout.CONFIG, template, keep=True), unit]
    load_config(config)  # a board must not get a configuration that its daemon would refuse
    return [BoardFile(layout.CONFIG, config.read_bytes()), unit]


def sentence(report: FlashReport) -> str:
    """A report in one line."""
    if report.already_current:
        return f"{report.board}: already current ({report.digest[:12]})"
    kept = f", {report.kept_bytes:,} were there" if report.kept_bytes else ""
    return (
        f"{report.board}: now runs {report.digest[:12]}; {report.sent_bytes:,} bytes sent{kept}; "
        f"service {report.service}"
    )


@contextmanager
def _board(
    address: str | None, root: Path | None, key: Path | None, known_hosts: Path | None
) -> Iterator[Board]:
    if address is None and root is not None:
        from edgeexit.deploy.board import FolderBoard

        yield FolderBoard(root)
        return
    from edgeexit.deploy.ssh import Address, SshBoard

    with SshBoard(Address.parse(address or ""), client_keys=key, known_hosts=known_hosts) as board:
        yield board


class _Shown:
    """A progress callback behind which a bar may stand."""

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Nothing to show."""


@contextmanager
def _bar(quiet: bool) -> Iterator[_Shown]:
    if quiet or not sys.stdout.isatty():
        yield _Shown()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("sending", total=None)

        class Bar(_Shown):
            def __call__(self, done_bytes: int, total_bytes: int) -> None:
                progress.update(task, completed=done_bytes, total=total_bytes)

        yield Bar()
