"""Ed25519 by the cryptography package, kept to this file."""

from __future__ import annotations

from edgeexit.errors import MissingExtra

SEED_BYTES = 32


def public_point(seed: bytes) -> bytes:
    """The public key of a seed of 32 bytes. Raises: MissingExtra."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise _missing("making keys") from error
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature, 64 bytes. Raises: MissingExtra."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise _missing("signing") from error
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def is_signed(point: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the holder of the key signed just this message. Raises: MissingExtra."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise _missing("verifying signatures") from error
    try:
        Ed25519PublicKey.from_public_bytes(point).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: the point is on no curve
        return False
    return True


def _missing(needed_for: str) -> MissingExtra:
    return MissingExtra("cryptography", extra="trust", needed_for=needed_for)
