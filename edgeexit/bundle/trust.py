"""Whom a machine takes bundles from, and how old they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from edgeexit.bundle.encoding import MANIFEST_FILE
from edgeexit.bundle.manifest import Manifest
from edgeexit.bundle.minisign import PublicKey, Signature, parse_public_key
from edgeexit.bundle.sign import SIGNATURE_FILE, Statement, covers, read_statement
from edgeexit.errors import ConfigError, KeyFileError, NotSigned, OlderSerial, SignatureError

# Two are needed while one key replaces another; far more than that is no list of trusted people any more.
MOST_KEYS = 64


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys of which one must have signed a bundle, and the least serial for each name of a bundle.

    Without keys, signatures are not asked for and not looked at.
    """

    keys: tuple[PublicKey, ...] = ()
    least_serials: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def check_bytes(self, manifest: bytes, signature: Signature | None) -> None:
        """Refuse a manifest that no trusted key signed, before a word of it is believed.

        Raises: NotSigned, SignatureError, MissingExtra.
        """
        if not self.keys:
            return
        if signature is None:
            raise NotSigned(file=SIGNATURE_FILE)
        claimed = [key for key in self.keys if key.key_id == signature.key_id]
        if not claimed:
            trusted = ", ".join(key.name for key in self.keys)
            raise SignatureError(
                f"the bundle is signed by key {signature.key_name}, which is not trusted here",
                file=SIGNATURE_FILE,
                key_id=signature.key_name,
                why=f"trusted: {trusted}",
                fix="have it signed by a trusted key, or trust this one: edgeexit keys trust",
            )
        # Ids are not secret: another key may bear the id of a trusted one.
        if not any(covers(key, signature, manifest) for key in claimed):
            raise SignatureError(
                f"the signature of {MANIFEST_FILE} is wrong",
                file=SIGNATURE_FILE,
                key_id=signature.key_name,
                why=f"key {signature.key_name} did not sign these bytes",
            )

    def check_manifest(self, manifest: Manifest, signature: Signature | None) -> None:
        """Refuse a bundle that is too old, or not the one that its signature speaks of.

        Raises: OlderSerial, SignatureError.
        """
        if self.keys and signature is not None:
            said, meant = read_statement(signature), Statement.of(manifest)
            # The minisign tool's own comment states nothing, and what it signed states all of this itself.
            if said is not None and said != meant:
                raise SignatureError(
                    "the signature is of another bundle",
                    file=SIGNATURE_FILE,
                    key_id=signature.key_name,
                    why=f"it says {said}, the manifest {meant}",
                )
        least = self.least_serials.get(manifest.name)
        if least is not None and manifest.serial < least:
            raise OlderSerial(
                file=MANIFEST_FILE, name=manifest.name, serial=manifest.serial, least_serial=least
            )


class TrustSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[trust]` table: public keys, one line each, and the least serial for each name of a bundle.

    With keys, a bundle that none of them signed is refused.
    """

    keys: tuple[str, ...] = ()
    least_serials: dict[str, int] = msgspec.field(default_factory=dict)

    def trust(self) -> Trust:
        """What the table means. Raises: ConfigError naming the key."""
        return configured_trust(self.keys, self.least_serials, key="trust.keys")


def configured_trust(keys: Sequence[str], least_serials: Mapping[str, int], *, key: str) -> Trust:
    """The trust that a configuration states: public keys, one line each, and serials by bundle name.

    `key` is the setting that holds the keys. Raises: ConfigError naming it.
    """
    if len(keys) > MOST_KEYS:
        raise ConfigError(f"{key} names {len(keys)} keys", key=key, why=f"at most {MOST_KEYS} may be trusted")
    try:
        trusted = tuple(parse_public_key(line, file=f"{key}[{i}]") for i, line in enumerate(keys))
    except KeyFileError as error:
        raise ConfigError(
            error.what, key=key, why=error.why, fix="give the line that begins with RW"
        ) from error
    for name, serial in least_serials.items():
        if serial < 0:
            raise ConfigError(f"the least serial of {name} is {serial}", key=key, why="serials begin at 0")
    return Trust(trusted, MappingProxyType(dict(least_serials)))
