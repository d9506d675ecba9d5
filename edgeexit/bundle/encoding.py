"""Canonical JSON of a manifest: one meaning, one sequence of bytes, one digest."""

from __future__ import annotations

import hashlib
import re
from typing import TypeVar

import msgspec

from edgeexit.bundle.manifest import SCHEMA, Manifest
from edgeexit.errors import ManifestError

MANIFEST_FILE = "manifest.json"

# 22,000 labels of 40 characters with twenty exits come to about 1 MiB; four times that.
MANIFEST_CAP_BYTES = 4 * 2**20

_Decoded = TypeVar("_Decoded")


class _SchemaOnly(msgspec.Struct):
    """Reads the schema number of any manifest, also of a later one."""

    schema: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON: keys sorted, no white space, UTF-8."""
    return msgspec.json.encode(manifest, order="sorted")


def digest_of(manifest: Manifest) -> str:
    """The name of the bundle everywhere: SHA-256 of its canonical manifest, in hex."""
    return hashlib.sha256(encode_manifest(manifest)).hexdigest()


def decode_manifest(data: bytes, *, file: str = MANIFEST_FILE) -> Manifest:
    """Read a manifest, strictly; its contents are not yet checked against each other.

    Raises: ManifestError naming the field: unknown schema, unknown or missing field, wrong type, or
    bytes that are not the canonical form (white space, repeated keys, 1 for 1.0).
    """
    if len(data) > MANIFEST_CAP_BYTES:
        raise ManifestError(
            f"{file} is refused", file=file, field="$", why=f"it is larger than {MANIFEST_CAP_BYTES} bytes"
        )
    schema = _decode(data, _SchemaOnly, file).schema
    if schema != SCHEMA:
        raise ManifestError(
            f"{file} has schema {schema}",
            file=file,
            field="schema",
            why=f"this version of edgeexit reads schema {SCHEMA}",
        )
    manifest = _decode(data, Manifest, file)
    if encode_manifest(manifest) != data:
        raise ManifestError(
            f"{file} is refused", file=file, field="$", why="it is not in canonical form: it was edited"
        )
    return manifest


def _decode(data: bytes, kind: type[_Decoded], file: str) -> _Decoded:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ManifestError(
            f"{file} is malformed", file=file, field=_field(str(error)), why=str(error)
        ) from error


def _field(message: str) -> str:
    """The field that a msgspec message is about, `$` where it is the whole document.

    Source: msgspec writes "… field `name` - at `$.path`".
    """
    path = re.search(r"at `(?:key in )?\$\.?([^`]*)`", message)
    named = re.search(r"field `([^`]*)`", message)
    parts = [match.group(1) for match in (path, named) if match is not None and match.group(1)]
    return ".".join(parts) or "$"
