"""TOML into frozen, typed settings: an unknown key is an error that names file and key."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar, get_args

import msgspec

from edgeexit.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A configuration file is a page of text; a megabyte of it is somebody's mistake or malice.
LARGEST_TOML_BYTES = 1 << 20

Table = Mapping[str, object]
Settings = TypeVar("Settings", bound=msgspec.Struct)


def parse_toml(content: bytes, *, file: str) -> dict[str, object]:
    """The tables of one TOML file.

    Raises: ConfigError when it is too large, not UTF-8, or not TOML.
    """
    if len(content) > LARGEST_TOML_BYTES:
        raise ConfigError(
            f"{file} is too large",
            file=file,
            why=f"{len(content)} bytes; {LARGEST_TOML_BYTES} are allowed",
        )
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text", file=file, why=str(error)) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML", file=file, why=str(error)) from error


def decode_settings(table: Table, kind: type[Settings], *, file: str) -> Settings:
    """The table as `kind`.

    Raises: ConfigError naming the file and the key: unknown (with the nearest known one), missing, or of
    the wrong type.
    """
    refuse_unknown(table, kind, file=file)
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _refused(str(error), file) from error


# What msgspec says, such as: Expected `float`, got `str` - at `$.source.frame_rate_hz`
_COMPLAINT = re.compile(r"(?P<why>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")


def _refused(complaint: str, file: str) -> ConfigError:
    parts = _COMPLAINT.fullmatch(complaint)
    why, place = (complaint, None) if parts is None else (parts["why"], parts["place"])
    missing = _MISSING.fullmatch(why)
    if missing is not None:
        key = f"{place}.{missing['field']}" if place else missing["field"]
        return ConfigError(
            f"{file}: {key} is missing", file=file, key=key, why=f"{key} has no default", fix=f"set {key}"
        )
    what = f"{file}: {place or 'a key'} cannot be used"
    return ConfigError(what, file=file, key=place or None, why=why.replace("`", ""))


def refuse_unknown(table: Table, kind: type[msgspec.Struct], *, file: str) -> None:
    """Raises: ConfigError for the first key that `kind` does not know, with the nearest one that it does."""
    _refuse_unknown(table, kind, file=file, prefix="")


def _refuse_unknown(table: Table, kind: type[msgspec.Struct], *, file: str, prefix: str) -> None:
    known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        path = f"{prefix}{key}"
        if key not in known:
            nearest = get_close_matches(key, known, n=1)
            raise ConfigError(
                f"{file}: unknown key {path}",
                file=file,
                key=path,
                why=f"known here: {', '.join(sorted(known))}",
                fix=f"did you mean {prefix}{nearest[0]}?" if nearest else "remove it",
            )
        inner = _struct_of(known[key])
        if inner is None:
            continue
        if isinstance(value, Mapping):
            _refuse_unknown(value, inner, file=file, prefix=f"{path}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _refuse_unknown(item, inner, file=file, prefix=f"{path}[{index}].")


def _struct_of(annotation: object) -> type[msgspec.Struct] | None:
    """The Struct in `X`, `X | None` or `tuple[X, ...]`; None where there is none."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None
