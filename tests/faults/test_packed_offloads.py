"""Packed boundaries end to end: a device's engine, a real broker, a gateway as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec import structs

from edgeexit.bundle import Bundle, digest_of, encode_manifest, open_bundle
from edgeexit.bundle.manifest import BoundaryCodec
from edgeexit.decide.answer import Answer, OffloadRecord, Place, Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.engine import Engine, Frame
from edgeexit.runner.packing import open_packing
from edgeexit.runner.selection import open_verified
from edgeexit.transport.broker import Broker
from edgeexit.transport.codecs import codec_name, payload_bytes
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.offload import MqttTransport, OffloadConfig

if TYPE_CHECKING:
    from edgeexit.bundle.manifest import Boundary

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.litert]

PATIENCE_S = 60.0
MAIN = """
import sys
from pathlib import Path
from edgeexit.gateway.config import read_config
from edgeexit.gateway.program import run_gateway
sys.exit(run_gateway(read_config(Path(sys.argv[1]), {})))
"""
FRAMES = 8


class OneWay:
    """Runs stages up to one boundary, sends it by one codec, and waits for the answer."""

    def __init__(self, boundary: int, codec: str) -> None:
        self.boundary = boundary
        self.codec = codec

    @property
    def name(self) -> str:
        return "one way"

    @property
    def anytime(self) -> bool:
        return True

    def decide(self, situation: Situation) -> Decision:
        if situation.in_flight is not None:
            return Decision(Action.WAIT, "sent", wait_ms=50.0)
        if situation.stages_done < self.boundary:
            return Decision(Action.CONTINUE, "on-the-way")
        for option in situation.options:
            if (option.boundary, option.codec) == (self.boundary, self.codec):
                return Decision(Action.OFFLOAD, "wanted", option)
        return Decision(Action.EXIT if situation.evidence else Action.CONTINUE, "no-such-option")


def monotonic_ms() -> float:
    return time.monotonic() * 1000.0


def with_codec(boundary: Boundary, codec: str) -> Boundary:
    name = codec_name(codec)
    added = BoundaryCodec(codec=name, payload_bytes=payload_bytes(boundary.tensors, name), quality_cost=0.0)
    return structs.replace(boundary, codecs=(*boundary.codecs, added))


@pytest.fixture
def served(packed_bundle: Bundle, tmp_path: Path) -> Iterator[tuple[Bundle, Broker]]:
    """A gateway process that serves the packed bundle with two more codecs."""
    out = tmp_path / "store" / "packed"
    shutil.copytree(packed_bundle.path, out)
    image, first, second = packed_bundle.manifest.boundaries
    manifest = structs.replace(
        packed_bundle.manifest,
        boundaries=(with_codec(image, "jpeg95"), with_codec(first, "int4-token-zstd"), second),
    )
    (out / "manifest.json").write_bytes(encode_manifest(manifest))
    (out / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
    bundle = open_bundle(out)
    with Broker(kind="mosquitto") as broker:
        config = tmp_path / "gateway.toml"
        config.write_text(
            f'[gateway]\nid = "gw-1"\nbroker = "{broker.address}"\nstore = "{out.parent}"\n', encoding="utf-8"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, str(config)], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            yield bundle, broker
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0


def test_a_gateway_process_answers_rightly_to_every_kind_of_payload(served: tuple[Bundle, Broker]) -> None:
    bundle, broker = served
    runner, _ = open_verified(bundle)
    packing = open_packing(bundle, runner)
    golden = bundle.golden()
    bytes_sent = {}
    for boundary, codec in (
        (0, "jpeg95"),
        (1, "raw"),
        (1, "int4-token-zstd"),
        (1, "bottleneck8"),
        (2, "bottleneck2"),
    ):
        records: list[Record] = []
        transport = MqttTransport(
            OffloadConfig(broker=broker.address, device="porch"),
            ServedBundle(bundle.digest, 3, output_size=3),
            clock=monotonic_ms,
        )
        engine = Engine(
            bundle,
            runner,
            policy=OneWay(boundary, codec),
            latency=LatencyModel((1.0, 1.0, 1.0)),
            budgets=FixedBudget(Budget(10_000.0)),
            clock=monotonic_ms,
            emit=records.append,
            transport=transport,
            packing=packing,
        )
        with engine:
            wait_for(transport, bundle, boundary, codec)
            right = 0
            for row in range(FRAMES):
                pixels = np.rint(golden.inputs["image"][row, 0, 0] * 255).astype(np.uint8)  # 8 8
                answer = engine.answer(Frame(row, "test", monotonic_ms(), pixels))
                assert isinstance(answer, Answer)
                assert (answer.place, answer.exit) == (Place.GATEWAY, 2), (codec, answer)
                right += int(np.argmax(answer.output) == golden.outputs[-1][row].argmax())
            # Eight images of noise and stripes: one near tie may fall the other way.
            assert right >= FRAMES - 1, codec
            engine.idle()
        sent = [record.uplink_bytes for record in records if isinstance(record, OffloadRecord)]
        bytes_sent[boundary, codec] = max(sent)
    assert bytes_sent[2, "bottleneck2"] < bytes_sent[1, "raw"]


def wait_for(transport: MqttTransport, bundle: Bundle, boundary: int, codec: str) -> None:
    """Until a gateway in reach has said that it can undo the codec, and has proved itself."""
    end_s = time.monotonic() + PATIENCE_S
    packed = bundle.manifest.boundaries[boundary].packer(codec) is not None
    while time.monotonic() < end_s:
        status = transport.status()
        able = status.abilities or frozenset()
        if status.up and (not packed or f"{codec}@{boundary}" in able) and {"jpeg", "zstd"} <= able:
            return
        time.sleep(0.02)
    raise AssertionError(f"no gateway: {transport.status()}")
