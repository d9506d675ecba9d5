"""Signing a bundle's manifest, and what a signature says of it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeexit.bundle.ed25519 import is_signed, sign
from edgeexit.bundle.encoding import MANIFEST_FILE
from edgeexit.bundle.manifest import Manifest
from edgeexit.bundle.minisign import PublicKey, Signature, encode_signature
from edgeexit.bundle.paths import fsync_directory
from edgeexit.bundle.secret_key import SecretKey
from edgeexit.errors import BundleError, SignatureError

# Where `minisign -V -m manifest.json` looks for it.
SIGNATURE_FILE = "manifest.json.minisig"

_STATEMENT = re.compile(
    r"edgeexit bundle\tname:(?P<name>[^\t]+)\tversion:(?P<version>[^\t]+)\tserial:(?P<serial>\d{1,16})"
    r"(\ttimestamp:\d{1,12})?"
)
_OWN = "edgeexit bundle"


@dataclass(frozen=True, slots=True)
class Statement:
    """What a trusted comment says: which bundle was signed."""

    name: str
    version: str
    serial: int

    @classmethod
    def of(cls, manifest: Manifest) -> Statement:
        """The statement that is true of this manifest."""
        return cls(manifest.name, manifest.version, manifest.serial)

    def __str__(self) -> str:
        return f"{self.name} {self.version}, serial {self.serial}"


def sign_manifest(data: bytes, manifest: Manifest, key: SecretKey, *, unix_s: int) -> Signature:
    """A signature of a manifest's bytes, prehashed as minisign does it, its comment naming the bundle.

    Units: unix_s, wall time, for people; it enters no digest. Raises: MissingExtra.
    """
    said = Statement.of(manifest)
    comment = f"{_OWN}\tname:{said.name}\tversion:{said.version}\tserial:{said.serial}\ttimestamp:{unix_s}"
    signature = sign(key.seed, hashlib.blake2b(data).digest())
    return Signature(
        prehashed=True,
        key_id=key.key_id,
        signature=signature,
        trusted_comment=comment,
        global_signature=sign(key.seed, signature + comment.encode("utf-8")),
        untrusted_comment=f"signature of {MANIFEST_FILE} by edgeexit key {key.public.name}",
    )


def covers(key: PublicKey, signature: Signature, data: bytes) -> bool:
    """Whether the key signed these bytes, and the trusted comment with them. Raises: MissingExtra."""
    message = hashlib.blake2b(data).digest() if signature.prehashed else data
    if (
        key.key_id != signature.key_id
    ):  # a name that nothing signs: but who looks for another does not find it
        return False
    if not is_signed(key.point, signature.signature, message):
        return False
    said = signature.signature + signature.trusted_comment.encode("utf-8")
    return is_signed(key.point, signature.global_signature, said)


def read_statement(signature: Signature) -> Statement | None:
    """What a trusted comment says of the bundle; None where another tool wrote the comment.

    Raises: SignatureError when it begins as ours do, and is not one.
    """
    comment = signature.trusted_comment
    if not comment.startswith(_OWN):
        return None
    found = _STATEMENT.fullmatch(comment)
    if found is None:
        raise SignatureError(
            "the signature's trusted comment is malformed",
            file=SIGNATURE_FILE,
            key_id=signature.key_name,
            why=f"{comment[:80]!r} names no bundle",
        )
    return Statement(found["name"], found["version"], int(found["serial"]))


def write_signature(root: Path, signature: Signature) -> None:
    """Lay a signature beside the manifest, whole or not at all. Raises: BundleError."""
    place = root / SIGNATURE_FILE
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{SIGNATURE_FILE}.", dir=root)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(encode_signature(signature))
                stream.flush()
                os.fsync(descriptor)
            Path(draft).chmod(0o644)  # mkstemp makes 0600: a daemon under another user must read it
            Path(draft).replace(place)
        finally:
            Path(draft).unlink(missing_ok=True)
        fsync_directory(root)
    except OSError as error:
        raise BundleError(f"{place} cannot be written", file=str(place), why=error.strerror) from error
