"""Requests whose tensors a packer made: answered where the packer proved itself, refused where not."""

from __future__ import annotations

import logging
from os import urandom
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from edgeexit.bundle import Bundle, write_bundle
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.core import GatewayCore, monotonic_ms
from edgeexit.gateway.log import EventLog
from edgeexit.transport import frames, wire
from edgeexit.transport.codecs import encode_tensors
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Frame

pytestmark = pytest.mark.litert


def ask(core: GatewayCore, bundle: Bundle, name: str, values: NDArray[np.float32]) -> Frame:
    data = frames.request(
        urandom(16),  # a request of the same id would be a duplicate
        bundle_digest=bundle.digest,
        boundary=1,
        last_stage=2,
        frame=1,
        budget_left_ms=20_000.0,
        tensors=encode_tensors({name: values}, "bottleneck8"),
    )
    reply = core.serve(data)
    assert reply is not None
    return wire.decode(reply)


def served(bundle: Bundle) -> GatewayCore:
    config = GatewayConfig(store=bundle.path, id="here", concurrency=1)
    return GatewayCore(config, EventLog(logging.getLogger("edgeexit.test"), monotonic_ms))


def test_what_a_proved_packer_made_is_answered(packed_bundle: Bundle) -> None:
    packer = packed_bundle.manifest.boundaries[1].packer("bottleneck8")
    assert packer is not None
    golden = packed_bundle.packer_golden(packer)
    with served(packed_bundle) as core:
        (advert,) = core.service.load().bundles
        assert {"bottleneck8@1", "pool4-int8@2"} <= set(advert.unpacks)
        reply = ask(core, packed_bundle, "bottleneck8", golden.packed["bottleneck8"][0])
        assert reply.header.status is Status.OK
        assert frames.output_of(reply).argmax() == golden.answers[0].argmax()
        # Shapes, names and mixtures of names that no packer of this boundary gives.
        for name, shape in (
            ("bottleneck8", (1, 4, 4)),
            ("bottleneck8", (1, 4, 8, 1)),
            ("bottleneck9", (1, 4, 8)),
            ("tokens", (1, 4, 4)),
        ):
            reply = ask(core, packed_bundle, name, np.ones(shape, np.float32))
            assert reply.header.status is Status.MALFORMED
        # The gateway is unharmed.
        reply = ask(core, packed_bundle, "bottleneck8", golden.packed["bottleneck8"][1])
        assert reply.header.status is Status.OK


def test_a_packer_that_is_wrong_here_is_neither_advertised_nor_used(
    packed_bundle: Bundle, tmp_path: Path
) -> None:
    first, wrong = (packed_bundle.manifest.boundaries[b].packer("bottleneck8") for b in (1, 2))
    assert first is not None
    assert wrong is not None
    boundaries = list(packed_bundle.manifest.boundaries)
    swapped = structs.replace(first, unpack=wrong.unpack)
    packers = tuple(swapped if each == first else each for each in boundaries[1].packers or ())
    boundaries[1] = structs.replace(boundaries[1], packers=packers)
    manifest = structs.replace(packed_bundle.manifest, boundaries=tuple(boundaries))
    files = {blob.file: packed_bundle.blob_path(blob).read_bytes() for blob in packed_bundle.manifest.blobs()}
    bundle = write_bundle(tmp_path / "wrong", manifest, files)
    with served(bundle) as core:
        (advert,) = core.service.load().bundles
        assert "bottleneck8@1" not in advert.unpacks
        assert "bottleneck4@1" in advert.unpacks
        reply = ask(core, bundle, "bottleneck8", np.ones((1, 4, 8), np.float32))
        assert reply.header.status is Status.MALFORMED
