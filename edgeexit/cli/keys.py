"""`edgeexit keys`: keys that sign bundles, and whom a configuration trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeexit.cli.present import command, show_json

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Config = Annotated[Path, typer.Option(help="A device's or a gateway's TOML file.")]


def build() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(help="Make keys that sign bundles, and say whom to trust.", no_args_is_help=True)
    app.command("generate")(generate)
    app.command("show")(show)
    app.command("trust")(trust)
    app.command("list")(list_keys)
    return app


@command
def generate(
    out: Annotated[
        Path, typer.Option(help="Where the secret key goes; the public one beside it as .pub.")
    ] = Path("edgeexit.key"),
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase in its first line.")
    ] = None,
    unlocked: Annotated[
        bool, typer.Option("--unlocked", help="Lock the key with no passphrase: who has the file can sign.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a key pair in minisign's format; a key that is there already is never replaced."""
    import msgspec

    from edgeexit.bundle.secret_key import encode_secret_key, generate_key, write_key_pair
    from edgeexit.cli.passphrase import read_passphrase

    public = out.with_suffix(".pub")
    made = generate_key()
    passphrase = None if unlocked else read_passphrase(passphrase_file, what=str(out), twice=True)
    write_key_pair(out, encode_secret_key(made, passphrase), public, made.public.text())
    if as_json:
        shown = {"key": made.public.name, "line": made.public.line, "secret": str(out), "public": str(public)}
        show_json(msgspec.json.encode(shown))
        return
    typer.echo(f"secret key  {out}: keep it, and keep it to yourself")
    typer.echo(f"public key  {public}: for everybody")
    typer.echo(f"id {made.public.name}, in one line: {made.public.line}")


@command
def show(
    key: Annotated[Path, typer.Argument(help="A public or a secret key file.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase of a secret key in its first line.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a key's id and its public line; of a secret key nothing else is shown."""
    import msgspec

    from edgeexit.bundle.minisign import parse_public_key
    from edgeexit.bundle.secret_key import read_key_text
    from edgeexit.cli.passphrase import read_secret_key
    from edgeexit.errors import KeyFileError

    try:
        found, secret = parse_public_key(read_key_text(key), file=str(key)), False
    except KeyFileError as no_public_key:
        try:
            found, secret = read_secret_key(key, passphrase_file).public, True
        except KeyFileError as error:
            # What is neither is told of as what people mostly show.
            if error.what.endswith("is no secret key"):
                raise no_public_key from None
            raise
    if as_json:
        show_json(msgspec.json.encode({"key": found.name, "line": found.line, "secret": secret}))
    else:
        typer.echo(f"{found.name}  {found.line}  ({'secret' if secret else 'public'})")


@command
def trust(
    keys: Annotated[list[str], typer.Argument(help="Public keys: files, or their one lines.")],
    config: Config,
) -> None:
    """Add keys to those that a configuration trusts; from the first one on, nothing unsigned is taken."""
    from edgeexit.bundle.minisign import parse_public_key
    from edgeexit.bundle.secret_key import read_key_text
    from edgeexit.cli.trusted_keys import add_trusted

    for each in keys:
        text = read_key_text(Path(each)) if Path(each).exists() else each
        found = parse_public_key(text, file=each)
        added = add_trusted(config, found)
        typer.echo(f"{config}: {found.name} {'is trusted now' if added else 'was trusted already'}")


@command
def list_keys(config: Config, as_json: Json = False) -> None:
    """List the keys that a configuration trusts."""
    import msgspec

    from edgeexit.cli.trusted_keys import trust_in

    found = trust_in(config).keys
    if as_json:
        show_json(msgspec.json.encode([{"key": key.name, "line": key.line} for key in found]))
        return
    for key in found:
        typer.echo(f"{key.name}  {key.line}")
    if not found:
        typer.echo(f"{config} trusts no key: bundles need not be signed", err=True)
