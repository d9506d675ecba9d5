"""Offloading over a real broker: a gateway of its own process, and a device that asks it over MQTT.

    python examples/offload_mqtt.py [BUNDLE]

It starts a broker (mosquitto, else the embedded one) on loopback. Each stage takes another 300 ms on the
device, as on a small board, so that the budget ends before the second one; the gateway is then stopped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from edgeexit.bundle import open_bundle
from edgeexit.decide.answer import Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.engine import Engine, Frame
from edgeexit.runner.preprocess import read_image
from edgeexit.runner.protocol import Runner, StageOutput, Tensors
from edgeexit.runner.selection import monotonic_ms, open_verified
from edgeexit.transport.broker import Broker
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.offload import MqttTransport, OffloadConfig

HERE = Path(__file__).parent
TINY = HERE.parent / "tests" / "data" / "tiny_bundle"
STAGE_MS, BUDGET_MS, PATIENCE_S = 300.0, 540.0, 60.0


class SlowRunner:
    """A runner in front of another one, which plays a slower board."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.stage_count, self.variant, self.close = runner.stage_count, runner.variant, runner.close

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        time.sleep(STAGE_MS / 1000.0)
        return self._runner.run(stage, tensors)


def wait_until_link(up: bool, transport: MqttTransport) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while transport.status().up is not up and time.monotonic() < end_s:
        time.sleep(0.05)


def main(bundle_path: str = str(TINY)) -> None:
    bundle = open_bundle(Path(bundle_path))
    image = read_image(HERE / "stripes.png")
    runner, report = open_verified(bundle)
    records: list[Record] = []
    with Broker() as broker:
        words = ["--store", str(bundle.path), "--id", "desk", "--broker", f"mqtt://127.0.0.1:{broker.port}"]
        command = "from edgeexit.cli.main import main; main()"
        gateway = subprocess.Popen([sys.executable, "-c", command, "gateway", *words])
        transport = MqttTransport(
            OffloadConfig(broker.address, device="porch"), ServedBundle(bundle.digest, runner.stage_count)
        )
        with Engine(
            bundle,
            SlowRunner(runner),
            policy=HedgedGain(tables=quality_tables(bundle.manifest.exits, report.chosen)),
            latency=LatencyModel([STAGE_MS + median for median in report.median_ms]),
            budgets=FixedBudget(Budget(latency_ms=BUDGET_MS)),
            clock=monotonic_ms,
            emit=records.append,
            transport=transport,
        ) as engine:
            wait_until_link(True, transport)
            for number in range(8):
                if number == 6:
                    gateway.terminate()
                    wait_until_link(False, transport)
                engine.idle()  # between frames: probes, and what late replies teach
                time.sleep(0.1)
                answer = engine.answer(Frame(number, "example", monotonic_ms(), image))
                print(f"frame {number}: exit {answer.exit} on the {answer.place.value}")
        gateway.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
