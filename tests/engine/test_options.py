"""What could be sent: only what this device can pack and a gateway in reach unpack."""

from __future__ import annotations

from concurrent.futures import Future

import msgspec
import pytest

from edgeexit.bundle import Bundle
from edgeexit.bundle.manifest import BoundaryCodec, CodecName, Manifest
from edgeexit.decide.decision import Evidence
from edgeexit.decide.link import LinkEstimator
from edgeexit.engine import offloads
from edgeexit.engine.audits import audit_options
from edgeexit.engine.offloads import Offloads
from edgeexit.transport.protocol import LinkStatus, OffloadReply, OffloadRequest, Pong

NAMES: tuple[CodecName, ...] = ("raw", "u8", "u8-zstd", "jpeg85")


class Gateways:
    """A link whose gateways can unpack what the test says."""

    def __init__(self, abilities: frozenset[str] | None) -> None:
        self.told = abilities

    def open(self) -> None:
        pass

    def status(self) -> LinkStatus:
        return LinkStatus(True, 1, 0, 0, 10_000, self.told)

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        raise AssertionError("nothing is sent here")

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        raise AssertionError("nothing is sent here")

    def probe(self, payload_bytes: int) -> Future[Pong]:
        raise AssertionError("nothing is sent here")

    def close(self) -> None:
        pass


@pytest.fixture
def manifest(tiny_bundle: Bundle) -> Manifest:
    codecs = tuple(BoundaryCodec(codec=name, payload_bytes=100, quality_cost=0.0) for name in NAMES)
    first, *others = tiny_bundle.manifest.boundaries
    boundaries = (msgspec.structs.replace(first, codecs=codecs), *others)
    return msgspec.structs.replace(tiny_bundle.manifest, boundaries=boundaries)


def _offloads(manifest: Manifest, gateways: Gateways) -> Offloads:
    return Offloads(
        manifest=manifest,
        digest="ab" * 32,
        transport=gateways,
        link=LinkEstimator(),
        judge=lambda exit_index, output: Evidence(exit_index, 0.5, None, (0.5,)),
        clock=lambda: 0.0,
        emit=lambda record: None,
        tell=lambda observation, now_ms: None,
    )


def _offered(manifest: Manifest, abilities: frozenset[str] | None) -> list[str]:
    engine = _offloads(manifest, Gateways(abilities))
    engine.look(0.0)
    return [option.codec for option in engine.options(0, None)[0]]


def test_options_are_what_both_ends_can_do(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _offered(manifest, None) == ["raw", "u8", "u8-zstd", "jpeg85"]
    assert _offered(manifest, frozenset()) == ["raw", "u8"]
    assert _offered(manifest, frozenset({"jpeg", "nibbles"})) == ["raw", "u8", "jpeg85"]
    monkeypatch.setattr(offloads, "abilities", lambda: frozenset({"nibbles", "jpeg"}))
    assert _offered(manifest, frozenset({"jpeg", "zstd"})) == ["raw", "u8", "jpeg85"]


def test_options_follow_gateways_that_come_and_go_and_what_is_left_of_a_budget(manifest: Manifest) -> None:
    gateways = Gateways(None)
    kept = _offloads(manifest, gateways)
    told: list[frozenset[str] | None] = [frozenset(), frozenset({"jpeg"}), None]
    for turn in range(200):
        gateways.told = told[turn % 3]
        bytes_left = (None, 99, 100, 100 + turn)[turn % 4]
        stages_done = turn % (len(manifest.boundaries) + 1)
        anew = _offloads(manifest, Gateways(gateways.told))
        for each in (kept, anew):
            each.look(0.0)
        assert kept.options(stages_done, bytes_left) == anew.options(stages_done, bytes_left)


def test_audits_use_what_every_gateway_knows(manifest: Manifest) -> None:
    smaller = tuple(
        msgspec.structs.replace(codec, payload_bytes=100 - index)
        for index, codec in enumerate(manifest.boundaries[0].codecs)
    )
    assert audit_options([msgspec.structs.replace(manifest.boundaries[0], codecs=smaller)])[0].codec == "u8"


def test_audits_send_no_boundary_that_a_packer_made(packed_bundle: Bundle) -> None:
    chosen = audit_options(packed_bundle.manifest.boundaries)
    assert [option.codec for option in chosen[1:]] == ["f16", "f16"]
