"""A real gateway whose stages take a set time: `python slow_gateway.py BROKER ID STORE STAGE_MS WHEN`.

WHEN is `always`, or `served` for stages that are quick while the bundle is loaded and measured.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from edgeexit.bundle import Bundle
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.core import GatewayCore, monotonic_ms, verified_runners
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.program import GatewayProgram
from edgeexit.runner.protocol import Runner, StageOutput, Tensors


class Slow:
    """Sleeps before every stage while `slow` is set."""

    def __init__(self, runner: Runner, stage_ms: float, slow: threading.Event) -> None:
        self._runner = runner
        self._stage_ms = stage_ms
        self._slow = slow

    @property
    def stage_count(self) -> int:
        """K."""
        return self._runner.stage_count

    def variant(self, stage: int) -> str:
        """The variant in use."""
        return self._runner.variant(stage)

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        """Sleep, then run."""
        if self._slow.is_set():
            time.sleep(self._stage_ms / 1000.0)
        return self._runner.run(stage, tensors)

    def close(self) -> None:
        """Free the interpreters."""
        self._runner.close()


def main() -> None:
    """Serve until SIGTERM."""
    broker, name, store, stage_ms, when = sys.argv[1:]
    slow = threading.Event()
    if when == "always":
        slow.set()

    def open_runners(bundle: Bundle, count: int) -> tuple[Runner, ...]:
        return tuple(Slow(runner, float(stage_ms), slow) for runner in verified_runners(1)(bundle, count))

    config = GatewayConfig(store=Path(store), id=name, broker=broker, concurrency=2)
    log = EventLog(logging.getLogger("slow-gateway"), monotonic_ms)
    program = GatewayProgram(config, GatewayCore(config, log, open_runners=open_runners), log)

    def on_signal(_: int, __: FrameType | None) -> None:
        program.stop()

    signal.signal(signal.SIGTERM, on_signal)
    with program:
        slow.set()
        program.run()


if __name__ == "__main__":
    main()
