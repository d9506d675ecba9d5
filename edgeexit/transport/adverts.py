"""Adverts: what a gateway says about itself once a second, retained."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgeexit.errors import WireError
from edgeexit.transport.status import Status

# 32 bundles of 16 stages each take about 8 kB; doubled.
ADVERT_CAP_BYTES = 16384

GatewayState = Literal["init", "ready", "degraded", "draining", "disconnected", "lost"]

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Stage = Annotated[int, msgspec.Meta(ge=0, lt=256)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
_Digest12 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}$")]
_Ability = Annotated[str, msgspec.Meta(max_length=32)]
_BootId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class BundleAdvert(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle that a gateway can run, and which of its stages.

    `unpacks` names what this bundle's own packers made and this gateway can undo, as `packer_ability` in
    `edgeexit.transport.codecs` has it.
    Units: service_ms, one smoothed time a stage in `stages`, None where none was run yet.
    """

    digest12: _Digest12
    name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    stages: Annotated[tuple[_Stage, ...], msgspec.Meta(max_length=256)]
    service_ms: Annotated[tuple[_Milliseconds | None, ...], msgspec.Meta(max_length=256)] = ()
    unpacks: Annotated[tuple[_Ability, ...], msgspec.Meta(max_length=256)] = ()


class Advert(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway is. Fields of later versions are ignored.

    `boot_id` is 16 hex digits drawn at each start and `sequence` rises with each advert, so that a
    delayed will or advert cannot bury a newer one. `unpacks` names what tensors may be packed with on their
    way there, as `edgeexit.transport.storage` has it; a gateway that names nothing takes them unpacked.
    """

    state: GatewayState
    boot_id: _BootId
    sequence: _Count = 0
    bundles: Annotated[tuple[BundleAdvert, ...], msgspec.Meta(max_length=256)] = ()
    unpacks: Annotated[tuple[_Ability, ...], msgspec.Meta(max_length=32)] = ()
    queue_depth: _Count = 0
    free_slots: _Count = 0

    @property
    def serving(self) -> bool:
        """Whether the gateway takes requests."""
        return self.state in ("ready", "degraded")


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Advert)


def encode_advert(advert: Advert) -> bytes:
    """The advert as JSON."""
    return _encoder.encode(advert)


def decode_advert(payload: bytes) -> Advert:
    """The advert in `payload`. Raises: WireError for anything else."""
    if len(payload) > ADVERT_CAP_BYTES:
        raise WireError(f"advert of {len(payload)} bytes", status=Status.TOO_LARGE)
    try:
        advert = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"advert: {error}") from error
    for bundle in advert.bundles:
        if bundle.service_ms and len(bundle.service_ms) != len(bundle.stages):
            raise WireError("advert: one service time a stage")
    return advert


def lost(boot_id: str) -> Advert:
    """The will of a gateway."""
    return Advert(state="lost", boot_id=boot_id)
