"""The keys that a device's or a gateway's configuration trusts: read, and added to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgeexit.board.settings import LARGEST_TOML_BYTES, decode_settings, parse_toml
from edgeexit.bundle.minisign import PublicKey
from edgeexit.bundle.trust import Trust, TrustSettings, configured_trust
from edgeexit.errors import ConfigError


def trust_in(config: Path) -> Trust:
    """Whom one configuration file trusts; what lies in a `conf.d` beside it is not looked at.

    Raises: ConfigError.
    """
    return _trust(_read(config), str(config))


def add_trusted(config: Path, key: PublicKey) -> bool:
    """Add a key to those that the file trusts; whether it was not among them. All else stays as it is.

    Raises: ConfigError; the file is then as it was.
    """
    content = _read(config)
    before = _trust(content, str(config)).keys
    if key in before:
        return False
    table, setting = _names(content, str(config))
    edited = _with_key(content.decode("utf-8"), table, setting, key.line)
    # The edit knows only the plain ways of writing a table; the reader judges whether it came out right.
    if _trust(edited.encode(), str(config), forgiving=True).keys != (key, *before):
        raise ConfigError(
            f"{config} cannot be edited",
            file=str(config),
            key=f"{table}.{setting}",
            why="it is written in an unusual way",
            fix=f'add "{key.line}" to {setting} in [{table}] by hand',
        )
    draft = config.with_name(f".{config.name}.part")
    mode = config.stat().st_mode & 0o777
    draft.write_text(edited, encoding="utf-8")
    draft.chmod(mode)
    os.replace(draft, config)
    return True


def _with_key(text: str, table: str, setting: str, line: str) -> str:
    """The text with one more key, in front of the others; a table or setting that is not there is made."""
    header = re.search(rf"^[ \t]*\[{table}\][ \t]*(#.*)?$", text, re.MULTILINE)
    if header is None:
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        return f'{text}{gap}[{table}]\n{setting} = [\n  "{line}",\n]\n'
    following = re.search(r"^[ \t]*\[", text[header.end() :], re.MULTILINE)
    end = len(text) if following is None else header.end() + following.start()
    listed = re.search(rf"^[ \t]*{setting}[ \t]*=[ \t]*\[", text[header.end() : end], re.MULTILINE)
    if listed is None:
        return f'{text[: header.end()]}\n{setting} = [\n  "{line}",\n]{text[header.end() :]}'
    at = header.end() + listed.end()
    return f'{text[:at]}\n  "{line}",{text[at:]}'


def _trust(content: bytes, file: str, *, forgiving: bool = False) -> Trust:
    try:
        tables = parse_toml(content, file=file)
        name, setting = _names(content, file)
        table = tables.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"{name} is no table",
                file=file,
                key=name,
                why=f"{name} has a value there, where settings below it are wanted",
                fix=f"begin it with [{name}]",
            )
        if name == "trust":
            return decode_settings(table, TrustSettings, file=file).trust()
        kept = {"keys": table.get(setting, []), "least_serials": table.get("least_serials", {})}
        settings = decode_settings(kept, TrustSettings, file=file)
        return configured_trust(settings.keys, settings.least_serials, key=setting)
    except ConfigError:
        if forgiving:
            return Trust()
        raise


def _names(content: bytes, file: str) -> tuple[str, str]:
    """The table and the setting that hold the keys: a gateway's file has one table for all."""
    tables = parse_toml(content, file=file)
    return ("gateway", "trusted_keys") if "gateway" in tables else ("trust", "keys")


def _read(config: Path) -> bytes:
    try:
        with config.open("rb") as stream:
            return stream.read(LARGEST_TOML_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{config} cannot be read", file=str(config), why=error.strerror, fix="name a file that is there"
        ) from error
