"""How the daemon tells the world how it is: the service manager, the control connection, the log."""

from __future__ import annotations

import logging
import sys

from edgeexit import __version__
from edgeexit.board.readings import Readings
from edgeexit.device.control import Control, InfoMessage
from edgeexit.device.guarantee import Guarantee
from edgeexit.device.records import RunStarted
from edgeexit.device.systemd import Notifier
from edgeexit.device.tally import Tally
from edgeexit.device.telemetry import LoopState, Snapshots
from edgeexit.errors import DeviceError

_log = logging.getLogger(__name__)

STATUS_EVERY_MS = 1000.0


class Teller:
    """Tells states when they change and figures when they are due; without a broker, fewer listen."""

    def __init__(self, notifier: Notifier, control: Control | None, tally: Tally, boot_id: str) -> None:
        self._notifier = notifier
        self._control = control
        self._tally = tally
        self._boot_id = boot_id
        self._snapshots: Snapshots | None = None
        self._trouble: DeviceError | None = None
        self._drift: DeviceError | None = None
        self._guarantee: Guarantee | None = None
        self._ready = False
        self._watchdog_at_ms = self._status_at_ms = float("-inf")

    @property
    def trouble(self) -> DeviceError | None:
        """Why there are no frames; None while the source works."""
        return self._trouble

    def introduce(self, run: RunStarted, title: str) -> None:
        """Say what runs here; `title` is the board's name for people."""
        playing = ""
        if run.slowdown is not None:
            playing = f", playing {run.played_board or 'a slower board'} (×{run.slowdown:g})"
        times = " ".join(f"{median_ms:.2f}" for median_ms in run.stage_ms)
        variants = " ".join(run.variants)
        short = run.bundle_digest[:12]
        _log.info("%s %s on %s%s: stages %s ms as %s", run.bundle, short, title, playing, times, variants)
        self._snapshots = Snapshots(self._boot_id, short, run.started_ms)
        if self._control is not None:
            self._control.introduce(
                InfoMessage(
                    boot_id=self._boot_id,
                    version=__version__,
                    board=run.board,
                    bundle=short,
                    bundle_name=run.bundle,
                    variants=run.variants,
                )
            )

    def loading(self) -> None:
        """Say that the daemon is on its way."""
        self._notifier.send("STATUS=loading the bundle")

    def ready(self) -> None:
        """Say, once, that the first frame or the first idle moment went through the loop."""
        if not self._ready:
            self._ready = True
            self._notifier.send("READY=1")
            self._tell_state()

    def stopping(self) -> None:
        """Say that the daemon stops."""
        self._notifier.send("STOPPING=1")
        if self._control is not None:
            self._control.tell("draining")

    def source(self, trouble: DeviceError | None) -> None:
        """Say that the source was lost, or (None) came back."""
        self._trouble = trouble
        if trouble is None:
            _log.info("the source is back")
        else:
            _log.warning("%s", trouble)
        self._tell_state()

    def guarantee(self, guarantee: Guarantee | None) -> None:
        """Tell of this guarantee from now on; what was said of another is over."""
        self._guarantee = guarantee
        if self._drift is not None:
            self._drift = None
            self._tell_state()

    def drift(self, found: DeviceError) -> None:
        """Say that early exits no longer keep their guarantee."""
        self._drift = found
        _log.warning("%s (%s)", found, found.fix)
        self._tell_state()

    def summary(self) -> str:
        """How it goes, in a line."""
        status = None if self._guarantee is None else self._guarantee.status
        watched = "" if status is None else f"; early exits: {status}"
        return f"{self._tally.counts()}{watched}"

    def keep_in_touch(self, now_ms: float) -> None:
        """Feed the watchdog from the loop, so that a hang is one; say in a line how it goes."""
        watchdog_ms = self._notifier.watchdog_ms
        if watchdog_ms is not None and now_ms - self._watchdog_at_ms >= watchdog_ms:
            self._watchdog_at_ms = now_ms
            self._notifier.send("WATCHDOG=1")
        if now_ms - self._status_at_ms >= STATUS_EVERY_MS:
            self._status_at_ms = now_ms
            line = self.summary()
            self._notifier.send(f"STATUS={line}")
            if sys.stderr.isatty():
                _log.info("%s", line)

    def reading(self, readings: Readings, loop: LoopState) -> None:
        """Publish a snapshot; called in the sampling thread."""
        if self._control is not None and self._snapshots is not None:
            self._control.publish_metrics(self._snapshots.take(self._tally.counts(), loop, readings))

    def _tell_state(self) -> None:
        if self._control is None:
            return
        if self._trouble is not None:
            self._control.tell("degraded", str(self._trouble))
        elif self._drift is not None:
            self._control.tell("degraded", str(self._drift))
        elif self._ready:
            self._control.tell("ready")
