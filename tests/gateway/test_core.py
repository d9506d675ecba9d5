"""A gateway without a broker, on the real runtime: what it answers is what the stages give."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeexit.bundle import Bundle
from edgeexit.errors import ConfigError, GatewayRefused
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.core import GatewayCore, monotonic_ms, verified_runners
from edgeexit.gateway.log import EventLog
from edgeexit.runner.protocol import Tensor, Tensors
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.loopback import LoopbackTransport
from edgeexit.transport.protocol import OffloadRequest

if TYPE_CHECKING:
    from tests.gateway.conftest import CopyBundle

pytestmark = pytest.mark.litert

PATIENCE_S = 60.0


@pytest.fixture
def core(tiny_bundle: Bundle) -> Iterator[GatewayCore]:
    config = GatewayConfig(store=tiny_bundle.path, id="here", concurrency=2)
    with GatewayCore(config, EventLog(logging.getLogger("edgeexit.test"), monotonic_ms)) as core:
        yield core


def transport_to(core: GatewayCore, bundle: Bundle) -> LoopbackTransport:
    served = ServedBundle(bundle.digest, bundle.manifest.stage_count, output_size=3)
    return LoopbackTransport(core.serve, served)


def request(bundle: Bundle, boundary: int, codec: str, tensors: Mapping[str, Tensor]) -> OffloadRequest:
    return OffloadRequest(
        frame=1,
        bundle_digest=bundle.digest,
        boundary=boundary,
        codec=codec,
        tensors=tensors,
        budget_left_ms=10_000.0,
    )


@pytest.mark.parametrize(("boundary", "codec"), [(0, "raw"), (0, "u8"), (1, "raw"), (2, "f16")])
def test_every_boundary_and_codec_gives_the_last_exit(
    core: GatewayCore, tiny_bundle: Bundle, boundary: int, codec: str
) -> None:
    (runner,) = verified_runners(1)(tiny_bundle, 1)
    golden = tiny_bundle.golden()
    tensors: Tensors = golden.sample(0)
    for stage in range(boundary):
        tensors = runner.run(stage, tensors).boundary
    sent = tensors
    for stage in range(boundary, 3):
        given = runner.run(stage, tensors)
        tensors = given.boundary
    transport = transport_to(core, tiny_bundle)
    transport.open()
    try:
        reply = transport.submit(request(tiny_bundle, boundary, codec, sent)).result(PATIENCE_S)
    finally:
        transport.close()
    assert reply.exit == 2
    tolerance = 0.05 if codec == "f16" else 1e-5
    np.testing.assert_allclose(reply.output, given.output, atol=tolerance)
    assert reply.queue_ms >= 0.0
    assert reply.compute_ms >= 0.0


def test_foreign_bundle_is_refused_through_the_loopback(
    core: GatewayCore, tiny_bundle: Bundle, tmp_path: Path, copy_bundle: CopyBundle
) -> None:
    other = copy_bundle(tmp_path / "other", 5)
    transport = transport_to(core, other)
    transport.open()
    image = tiny_bundle.golden().sample(0)
    try:
        with pytest.raises(GatewayRefused) as caught:
            transport.submit(request(other, 0, "raw", image)).result(PATIENCE_S)
    finally:
        transport.close()
    assert caught.value.reason == "unknown_bundle"


def test_closed_gateway_refuses_and_holds_nothing(tiny_bundle: Bundle) -> None:
    config = GatewayConfig(store=tiny_bundle.path, id="here", concurrency=1)
    core = GatewayCore(config, EventLog(logging.getLogger("edgeexit.test"), monotonic_ms))
    core.open()
    core.close()
    assert core.bundles == ()
    assert core.serve(b"not a frame") is None


def test_store_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    config = GatewayConfig(store=tmp_path / "absent", id="here")
    core = GatewayCore(config, EventLog(logging.getLogger("edgeexit.test"), monotonic_ms))
    with pytest.raises(ConfigError):
        core.open()
