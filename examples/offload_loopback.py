"""Offloading within one process: the device asks a gateway while it computes on, whatever the link does.

    python examples/offload_loopback.py [BUNDLE]

Each stage takes another 160 ms here, as on a small board, and the budget ends before the second one. The
gateway runs all stages at full speed behind a link that is good, then slow, then cut.
"""

from __future__ import annotations

import logging
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
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.core import GatewayCore
from edgeexit.gateway.log import EventLog
from edgeexit.runner.preprocess import read_image
from edgeexit.runner.protocol import Runner, StageOutput, Tensors
from edgeexit.runner.selection import monotonic_ms, open_verified
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.loopback import LinkConditions, LoopbackTransport

HERE = Path(__file__).parent
TINY = HERE.parent / "tests" / "data" / "tiny_bundle"
STAGE_MS, BUDGET_MS = 160.0, 300.0


class SlowRunner:
    """A runner in front of another one, which plays a slower board."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.stage_count, self.variant, self.close = runner.stage_count, runner.variant, runner.close

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        time.sleep(STAGE_MS / 1000.0)
        return self._runner.run(stage, tensors)


def main(bundle_path: str = str(TINY)) -> None:
    bundle = open_bundle(Path(bundle_path))
    image = read_image(HERE / "stripes.png")
    runner, report = open_verified(bundle)
    log = EventLog(logging.getLogger("gateway"), monotonic_ms)
    records: list[Record] = []
    with GatewayCore(GatewayConfig(store=bundle.path, id="desk"), log) as gateway:
        link = LoopbackTransport(gateway.serve, ServedBundle(bundle.digest, runner.stage_count))
        with Engine(
            bundle,
            SlowRunner(runner),
            policy=HedgedGain(tables=quality_tables(bundle.manifest.exits, report.chosen)),
            latency=LatencyModel([STAGE_MS + median for median in report.median_ms]),
            budgets=FixedBudget(Budget(latency_ms=BUDGET_MS)),
            clock=monotonic_ms,
            emit=records.append,
            transport=link,
        ) as engine:
            for state in ("good", "good", "good", "slow", "slow", "cut", "cut"):
                link.conditions = LinkConditions(up_ms=2000.0 if state == "slow" else 1.0)
                if state == "cut":
                    link.cut()
                engine.idle()  # between frames: probes, and what late replies teach
                time.sleep(0.05)
                answer = engine.answer(Frame(0, "example", monotonic_ms(), image))
                print(
                    f"link {state:>4}: exit {answer.exit} on the {answer.place.value}, "
                    f"{answer.latency_ms:.0f} of {answer.deadline_ms:.0f} ms: {' → '.join(answer.route)}"
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
