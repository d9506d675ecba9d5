"""Secret keys in minisign's file format: made, locked with a passphrase, written so that only you read them.

Source: https://jedisct1.github.io/minisign/, section "Secret key format"; the choice of scrypt's parameters
is libsodium's `crypto_pwhash_scryptsalsa208sha256`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

from edgeexit.bundle.ed25519 import SEED_BYTES, public_point
from edgeexit.bundle.minisign import KEY_ALGORITHM, KEY_CAP_BYTES, KEY_ID_BYTES, UNTRUSTED, PublicKey
from edgeexit.errors import KeyFileError

_SCRYPT = b"Sc"
_UNLOCKED = b"\0\0"
_BLAKE2B = b"B2"

# Signature algorithm, key derivation, checksum, salt, operations, memory; then the locked part: key id,
# seed and point, checksum.
_LAYOUT = struct.Struct("<2s2s2s32sQQ104s")
_LOCKED = struct.Struct("<8s32s32s32s")

# 128 MiB and half a second on a workstation: what OWASP asks of scrypt. minisign's own choice, 1 GiB, would
# not fit on every machine that signs. Both are read.
_OPERATIONS = 2**22
_MEMORY_BYTES = 2**27
# minisign's own choice; a file that asks for more is somebody's trick.
_MOST_MEMORY_BYTES = 2**30
_MOST_OPERATIONS = 2**25
_BLOCK = 8  # r, fixed in libsodium


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """A key that signs. Shapes: key_id, 8 bytes; seed and point, 32 bytes each."""

    key_id: bytes
    seed: bytes
    point: bytes

    def __repr__(self) -> str:
        return f"SecretKey({self.public.name})"

    @property
    def public(self) -> PublicKey:
        """The key that verifies what this one signs."""
        return PublicKey(self.key_id, self.point)


def generate_key() -> SecretKey:
    """A fresh key, from the system's randomness. Raises: MissingExtra."""
    seed = secrets.token_bytes(SEED_BYTES)
    return SecretKey(secrets.token_bytes(KEY_ID_BYTES), seed, public_point(seed))


def encode_secret_key(
    key: SecretKey,
    passphrase: str | None,
    *,
    operations: int = _OPERATIONS,
    memory_bytes: int = _MEMORY_BYTES,
) -> str:
    """The key file; without a passphrase the key lies in it openly.

    Raises: KeyFileError where there is not the memory to lock it.
    """
    plain = key.key_id + key.seed + key.point
    if passphrase is None:
        # minisign leaves the checksum of an open key empty, and does not look at it.
        packed = _LAYOUT.pack(KEY_ALGORITHM, _UNLOCKED, _BLAKE2B, bytes(32), 0, 0, plain + bytes(32))
        comment = "edgeexit secret key, not locked"
    else:
        salt = secrets.token_bytes(32)
        stream = _stream(passphrase, salt, operations, memory_bytes, file="the new key")
        locked = _xor(plain + _checksum(plain), stream)
        packed = _LAYOUT.pack(KEY_ALGORITHM, _SCRYPT, _BLAKE2B, salt, operations, memory_bytes, locked)
        comment = "edgeexit secret key, locked by a passphrase"
    return f"{UNTRUSTED}{comment}\n{base64.b64encode(packed).decode('ascii')}\n"


def is_locked(text: str, *, file: str) -> bool:
    """Whether a passphrase is needed to read this key file. Raises: KeyFileError."""
    return _unpack(text, file)[1] == _SCRYPT


def parse_secret_key(text: str, passphrase: str | None, *, file: str) -> SecretKey:
    """Read a key file. Raises: KeyFileError: no key, a wrong passphrase, or none where one is needed."""
    _, derivation, _, salt, operations, memory_bytes, locked = _unpack(text, file)
    if derivation == _SCRYPT:
        if passphrase is None:
            raise KeyFileError(
                f"{file} is locked",
                file=file,
                why="it needs its passphrase",
                fix="give the passphrase that it was made with",
            )
        locked = _xor(locked, _stream(passphrase, salt, operations, memory_bytes, file=file))
    key_id, seed, point, checksum = _LOCKED.unpack(locked)
    right = hmac.compare_digest(checksum, _checksum(locked[:-32]))
    if derivation == _SCRYPT and not right:
        raise KeyFileError(
            f"{file} stays locked",
            file=file,
            why="the passphrase is wrong",
            fix="give the passphrase that it was made with",
        )
    if not hmac.compare_digest(public_point(seed), point):
        raise _no_key(file, "its two halves do not belong together")
    return SecretKey(key_id, seed, point)


def read_key_text(path: Path) -> str:
    """The text of a key file. Raises: KeyFileError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(KEY_CAP_BYTES + 1)
        if len(data) > KEY_CAP_BYTES:
            raise _no_key(str(path), f"it is larger than {KEY_CAP_BYTES} bytes")
        return data.decode("utf-8")
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read", file=str(path), why=error.strerror) from error
    except UnicodeDecodeError as error:
        raise _no_key(str(path), "it is not UTF-8 text") from error


def write_key_pair(secret: Path, secret_text: str, public: Path, public_text: str) -> None:
    """Write both files, the secret one readable by its owner alone; neither where one is there already.

    Raises: KeyFileError.
    """
    _write_new(secret, secret_text, 0o600)
    try:
        _write_new(public, public_text, 0o644)
    except KeyFileError:
        secret.unlink()
        raise


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: a key that is there, also by a link, is never replaced.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, mode)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} is there already",
            file=str(path),
            why="a key that was replaced could not be had again",
            fix="choose another name, or move the old key away",
        ) from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written", file=str(path), why=error.strerror) from error


def _unpack(text: str, file: str) -> tuple[bytes, bytes, bytes, bytes, int, int, bytes]:
    lines = text.splitlines()
    if len(lines) != 2 or not lines[0].startswith(UNTRUSTED):
        raise _no_key(file, "a comment line and a line of base64 are wanted")
    try:
        packed = base64.b64decode(lines[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _no_key(file, "its second line is not base64") from error
    if len(packed) != _LAYOUT.size:
        raise _no_key(file, f"{_LAYOUT.size} bytes in base64 are wanted")
    fields: tuple[bytes, bytes, bytes, bytes, int, int, bytes] = _LAYOUT.unpack(packed)
    algorithm, derivation, checksum = fields[:3]
    if algorithm != KEY_ALGORITHM or checksum != _BLAKE2B or derivation not in (_SCRYPT, _UNLOCKED):
        raise _no_key(file, "it is of another kind than Ed25519, scrypt and BLAKE2b")
    return fields


def _checksum(plain: bytes) -> bytes:
    return hashlib.blake2b(KEY_ALGORITHM + plain, digest_size=32).digest()


def _stream(passphrase: str, salt: bytes, operations: int, memory_bytes: int, *, file: str) -> bytes:
    """104 bytes that only this passphrase gives."""
    if operations > _MOST_OPERATIONS or memory_bytes > _MOST_MEMORY_BYTES:
        raise _no_key(file, f"unlocking it would take more than {_MOST_MEMORY_BYTES >> 20} MiB or minutes")
    cost, lanes = _scrypt_parameters(operations, memory_bytes)
    room_bytes = 128 * _BLOCK * (cost + lanes + 2)
    try:
        return hashlib.scrypt(
            passphrase.encode("utf-8"),
            salt=salt,
            n=cost,
            r=_BLOCK,
            p=lanes,
            maxmem=room_bytes,
            dklen=_LOCKED.size,
        )
    except (ValueError, MemoryError) as error:
        raise KeyFileError(
            f"{file} stays locked",
            file=file,
            why=f"scrypt needs {room_bytes >> 20} MiB: {error}",
            fix="unlock it on a machine with more memory",
        ) from error


def _scrypt_parameters(operations: int, memory_bytes: int) -> tuple[int, int]:
    """N and p as libsodium chooses them."""
    operations = max(operations, 32_768)
    if operations < memory_bytes // 32:
        most = operations // (_BLOCK * 4)
        return _power_below(most), 1
    most = memory_bytes // (_BLOCK * 128)
    cost = _power_below(most)
    lanes = min(operations // 4 // cost, 0x3FFFFFFF) // _BLOCK
    return cost, max(1, lanes)


def _power_below(most: int) -> int:
    """The smallest power of two, from 2 on, that is above half of `most`."""
    cost = 2
    while cost <= most // 2:
        cost *= 2
    return cost


def _xor(data: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def _no_key(file: str, why: str) -> KeyFileError:
    return KeyFileError(f"{file} is no secret key", file=file, why=why)
