"""`edgeexit bundle`: verify, sign, compare, look at and describe bundles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli import inspect
from edgeexit.cli.card import command as card
from edgeexit.cli.present import command, show_json

if TYPE_CHECKING:
    from edgeexit.bundle.compare import BundleDiff
    from edgeexit.bundle.trust import Trust

Folder = Annotated[Path, typer.Argument(help="The bundle's directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def build() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(help="Verify, sign, compare and describe bundles.", no_args_is_help=True)
    app.command("verify")(verify)
    app.command("sign")(sign)
    app.command("diff")(diff)
    app.command("inspect")(inspect.inspect)
    app.command("card")(card.card)
    return app


@command
def verify(
    bundle: Folder,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Public key that may have signed it: a file, or its one line; several times."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Trust whom this device's or gateway's configuration trusts.")
    ] = None,
    least_serial: Annotated[int | None, typer.Option(min=0, help="Refuse an older serial.")] = None,
    as_json: Json = False,
) -> None:
    """Verify every file of a bundle, its signature where a key is given, and its age where asked."""
    import msgspec

    from edgeexit.bundle.store import open_bundle

    trust = _trust(key or [], config)
    opened = open_bundle(bundle, trust=trust)
    manifest, signature = opened.manifest, opened.signature
    if least_serial is not None:
        _trust_serial(manifest.name, least_serial).check_manifest(manifest, None)
    verified_by = None if signature is None or not trust.keys else signature.key_name
    if as_json:
        shown = {
            "digest": opened.digest,
            "name": manifest.name,
            "version": manifest.version,
            "serial": manifest.serial,
            "signed_by": None if signature is None else signature.key_name,
            "verified_by": verified_by,
            "trusted_comment": None
            if verified_by is None or signature is None
            else signature.trusted_comment,
        }
        show_json(msgspec.json.encode(shown))
        return
    typer.echo(f"{manifest.name} {manifest.version}, serial {manifest.serial}: every file is as it was made")
    typer.echo(f"digest     {opened.digest}")
    if signature is None:
        typer.echo("signature  none")
    elif verified_by is None:
        typer.echo(f"signature  claims key {signature.key_name}; not verified, for no --key was given")
    else:
        typer.echo(f"signature  by key {verified_by}, which is trusted")


@command
def sign(
    bundle: Folder,
    key: Annotated[Path, typer.Option(help="Secret key file, of `edgeexit keys generate` or of minisign.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase in its first line.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a bundle, then sign its manifest; `minisign -V -m manifest.json` verifies the result."""
    import msgspec

    from edgeexit.bundle.store import open_bundle
    from edgeexit.bundle.write import sign_bundle
    from edgeexit.cli.passphrase import read_secret_key

    opened = open_bundle(bundle)
    signed = sign_bundle(opened, read_secret_key(key, passphrase_file), unix_s=int(time.time()))
    by = "" if signed.signature is None else signed.signature.key_name
    if as_json:
        show_json(msgspec.json.encode({"digest": signed.digest, "signed_by": by}))
    else:
        typer.echo(f"{signed.manifest.name} {signed.manifest.version} is signed by key {by}")


@command
def diff(
    before: Annotated[Path, typer.Argument(help="A bundle.")],
    after: Annotated[Path, typer.Argument(help="Another bundle.")],
    as_json: Json = False,
) -> None:
    """Say what differs between two bundles: stages, variants, sizes, calibration, files shared."""
    import msgspec

    from edgeexit.bundle.compare import compare
    from edgeexit.bundle.store import open_bundle

    found = compare(open_bundle(before), open_bundle(after))
    if as_json:
        show_json(msgspec.json.encode(found))
    else:
        _show_diff(found)


def _show_diff(found: BundleDiff) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if found.before == found.after and not found.differences:
        console.print(f"the same bundle: {found.before}", highlight=False)
        return
    table = Table(box=None)
    for title in ("", found.before[:12], found.after[:12]):
        table.add_column(title)
    for each in found.differences:
        table.add_row(
            each.place, *(escape("–" if text is None else text) for text in (each.before, each.after))
        )
    console.print(table)
    console.print(
        f"\n{found.shared_files} files are shared ({found.shared_bytes:,} bytes), "
        f"{found.added_files} are new ({found.added_bytes:,} bytes to send), "
        f"{found.dropped_files} are gone ({found.dropped_bytes:,} bytes)",
        highlight=False,
    )


def _trust(keys: list[str], config: Path | None) -> Trust:
    """The keys of the command line and of a configuration. Raises: KeyFileError, ConfigError."""
    from edgeexit.bundle.minisign import parse_public_key
    from edgeexit.bundle.secret_key import read_key_text
    from edgeexit.bundle.trust import Trust
    from edgeexit.cli.trusted_keys import trust_in

    given = tuple(
        parse_public_key(read_key_text(Path(each)) if Path(each).exists() else each, file=each)
        for each in keys
    )
    configured = Trust() if config is None else trust_in(config)
    return Trust((*given, *configured.keys), configured.least_serials)


def _trust_serial(name: str, least_serial: int) -> Trust:
    from edgeexit.bundle.trust import Trust

    return Trust(least_serials={name: least_serial})
