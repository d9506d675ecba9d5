"""Public keys and signatures as the minisign tool writes them: texts of a few lines, read strictly.

Source: https://jedisct1.github.io/minisign/, section "Signature format".
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from edgeexit.errors import KeyFileError, SignatureError

# What a signature is of: the BLAKE2b-512 digest of a file, minisign's own choice, or the file itself.
PREHASHED = b"ED"
LEGACY = b"Ed"
KEY_ALGORITHM = b"Ed"

KEY_ID_BYTES = 8
POINT_BYTES = 32
SIGNATURE_BYTES = 64

UNTRUSTED = "untrusted comment: "
TRUSTED = "trusted comment: "

# minisign itself reads comments of 1 kB and trusted ones of 8 kB; the rest is 200 characters.
SIGNATURE_CAP_BYTES = 10 * 1024
KEY_CAP_BYTES = 2 * 1024
LONGEST_TRUSTED_COMMENT = 8192


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are verified with. Shapes: key_id, 8 bytes; point, 32 bytes."""

    key_id: bytes
    point: bytes

    @property
    def name(self) -> str:
        """The key's id as minisign prints it: 16 hex digits."""
        return key_name(self.key_id)

    @property
    def line(self) -> str:
        """The key in one line, as configurations and `minisign -P` take it: 56 characters."""
        return base64.b64encode(KEY_ALGORITHM + self.key_id + self.point).decode("ascii")

    def text(self, comment: str | None = None) -> str:
        """The whole key file."""
        return f"{UNTRUSTED}{comment or f'minisign public key {self.name}'}\n{self.line}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature file.

    `global_signature` covers the signature and the trusted comment. Shapes: key_id, 8 bytes; signature
    and global_signature, 64 bytes each.
    """

    prehashed: bool
    key_id: bytes
    signature: bytes
    trusted_comment: str
    global_signature: bytes
    untrusted_comment: str = ""

    @property
    def key_name(self) -> str:
        """The id of the key that it claims to be by."""
        return key_name(self.key_id)


def key_name(key_id: bytes) -> str:
    """A key id as minisign prints it: a little-endian number in hex."""
    return f"{int.from_bytes(key_id, 'little'):016X}"


def parse_public_key(text: str, *, file: str) -> PublicKey:
    """Read a public key: its file, or the one line of it that counts.

    Raises: KeyFileError.
    """
    lines = _lines(text)
    if len(lines) == 2 and lines[0].startswith(UNTRUSTED):
        lines = lines[1:]
    if len(lines) != 1 or len(text) > KEY_CAP_BYTES:
        raise _no_key(file, "it is not one line of base64, with a comment line above it")
    data = _base64(lines[0])
    if data is None or len(data) != len(KEY_ALGORITHM) + KEY_ID_BYTES + POINT_BYTES:
        raise _no_key(file, "42 bytes in base64 are wanted")
    if data[:2] != KEY_ALGORITHM:
        raise _no_key(file, "it is not of Ed25519")
    return PublicKey(data[2:10], data[10:])


def encode_signature(signature: Signature) -> bytes:
    """The signature file."""
    algorithm = PREHASHED if signature.prehashed else LEGACY
    signed = base64.b64encode(algorithm + signature.key_id + signature.signature).decode("ascii")
    overall = base64.b64encode(signature.global_signature).decode("ascii")
    comment = signature.untrusted_comment or "signature from edgeexit secret key"
    return f"{UNTRUSTED}{comment}\n{signed}\n{TRUSTED}{signature.trusted_comment}\n{overall}\n".encode()


def decode_signature(data: bytes, *, file: str) -> Signature:
    """Read a signature file; nothing is verified. Raises: SignatureError."""
    if len(data) > SIGNATURE_CAP_BYTES:
        raise _no_signature(file, f"it is larger than {SIGNATURE_CAP_BYTES} bytes")
    try:
        lines = _lines(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _no_signature(file, "it is not UTF-8 text") from error
    if len(lines) != 4 or not (lines[0].startswith(UNTRUSTED) and lines[2].startswith(TRUSTED)):
        raise _no_signature(file, "four lines are wanted, the first and the third of them comments")
    signed, overall = _base64(lines[1]), _base64(lines[3])
    if signed is None or len(signed) != 2 + KEY_ID_BYTES + SIGNATURE_BYTES:
        raise _no_signature(file, "its second line is not 74 bytes in base64")
    if signed[:2] not in (PREHASHED, LEGACY):
        raise _no_signature(file, "it is not of Ed25519")
    if overall is None or len(overall) != SIGNATURE_BYTES:
        raise _no_signature(file, "its last line is not 64 bytes in base64")
    comment = lines[2][len(TRUSTED) :]
    if len(comment) > LONGEST_TRUSTED_COMMENT:
        raise _no_signature(file, "its trusted comment is too long")
    return Signature(
        prehashed=signed[:2] == PREHASHED,
        key_id=signed[2:10],
        signature=signed[10:],
        trusted_comment=comment,
        global_signature=overall,
        untrusted_comment=lines[0][len(UNTRUSTED) :],
    )


def _lines(text: str) -> list[str]:
    """The lines, without their ends and without one empty line after the last."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def _base64(line: str) -> bytes | None:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return None


def _no_key(file: str, why: str) -> KeyFileError:
    return KeyFileError(
        f"{file} is no public key",
        file=file,
        why=why,
        fix="give what `edgeexit keys generate` wrote, or minisign",
    )


def _no_signature(file: str, why: str) -> SignatureError:
    return SignatureError(f"{file} is no signature", file=file, key_id=None, why=why)
