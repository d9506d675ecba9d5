"""The daemon: real parts, put together, and the loop that answers frames until it is told to stop."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from edgeexit.board.readings import Readings
from edgeexit.board.sampler import BoardSampler
from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.decide.budget import LatestBudget
from edgeexit.decide.drift import Breach
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.spending import Spending
from edgeexit.device.budgets import BudgetInForce
from edgeexit.device.capture import Capture
from edgeexit.device.clock import monotonic_ms
from edgeexit.device.config import DeviceConfig, load_config
from edgeexit.device.control import Control, ResultPublisher
from edgeexit.device.guarantee import Guarantee, drift_found, make_guarantee
from edgeexit.device.log import open_log
from edgeexit.device.outbox import Outbox
from edgeexit.device.parts import (
    CODEC_TIMES_FILE,
    PlayedBoard,
    find_profile,
    first_budget,
    make_budgets,
    make_control,
    make_reader,
    make_runner,
    make_transport,
    played_board,
    sending_mj_per_byte,
    state_file,
)
from edgeexit.device.payloads import make_payloads
from edgeexit.device.policy import PolicyInForce, choose_policy
from edgeexit.device.recorder import Recorder
from edgeexit.device.records import DriftFound, RunStarted
from edgeexit.device.results_file import ResultsFile
from edgeexit.device.shutdown import ANSWER_WITHIN_MS, ShutdownGuard, Signals
from edgeexit.device.slot import FrameSlot, dropped
from edgeexit.device.systemd import Notifier
from edgeexit.device.telemetry import LoopState
from edgeexit.device.telling import Teller
from edgeexit.device.turns import quick_turns
from edgeexit.engine import Engine, Frame
from edgeexit.errors import DataError, DeviceError, EdgeExitError, RunnerError

_log = logging.getLogger(__name__)

# How long the loop waits for a frame before it uses the time otherwise: probes, signals, the watchdog.
IDLE_S = 0.1


def run_device(
    config: DeviceConfig, *, config_file: Path | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Run until the source ends or a signal comes; the exit status for the shell.

    On SIGHUP, budget and policy are read again from `config_file`.
    Raises: EdgeExitError when it cannot start: a bundle, source or setting that cannot be used.
    """
    used = os.environ if environment is None else environment
    with open_log(used), Daemon(config, config_file, used) as daemon:
        return daemon.run()


class Daemon:
    """One device at work; a context manager that opens all parts in order and closes them in reverse."""

    def __init__(
        self, config: DeviceConfig, config_file: Path | None, environment: Mapping[str, str]
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._environment = environment
        self._recorder = Recorder()
        self._slot = FrameSlot(self._recorder.emit)
        self._latest = LatestBudget(first_budget(config.budget))
        self._budgets = BudgetInForce(self._latest)
        self._guard = ShutdownGuard(self._finish_in_haste)
        self._signals = Signals(self._on_stop)
        self._parts = ExitStack()
        self._in_hand: Frame | None = None
        self._control: Control | None = None
        self._guarantee: Guarantee | None = None
        self._guaranteed = config.policy
        self._spending = Spending(
            byte_price=config.offload.byte_price,
            bytes_per_s=config.offload.bytes_per_s,
            energy_mj_per_s=config.policy.power_mw,
        )
        self._running = False

    def __enter__(self) -> Daemon:
        try:
            self._open()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._guard.begin()
        self._guard.loop_ended()
        self._teller.stopping()
        self._slot.close()
        self._parts.close()
        self._guard.closed()

    def _open(self) -> None:
        """Open all parts, what is needed last first. Raises: EdgeExitError."""
        config, parts = self._config, self._parts
        self._guard.open()
        self._signals.install()
        parts.enter_context(quick_turns())
        boot_id = secrets.token_hex(8)
        self._control = control = make_control(config, boot_id, self._latest)
        self._teller = Teller(Notifier(self._environment), control, self._recorder.tally, boot_id)
        self._teller.loading()
        self._bundle = bundle = open_bundle(Path(config.bundle), trust=config.trust.trust())
        if control is not None:
            control.open()
            parts.callback(control.close)
        parts.callback(self._finish)
        profile = find_profile(config.board)
        self._spending.sending(sending_mj_per_byte(config, profile))
        played = played_board(config.play)
        runner, stage_ms = make_runner(config, bundle, profile, played, self._environment)
        parts.callback(runner.close)
        self._variants = tuple(runner.variant(stage) for stage in range(runner.stage_count))
        self._latency = LatencyModel(stage_ms)
        self._guarantee = guarantee = self._make_guarantee(config)
        self._policy = PolicyInForce(choose_policy(config.policy, bundle.manifest, self._variants, guarantee))
        transport = make_transport(config, bundle)
        threads = config.threads or profile.runtime.threads
        times = state_file(config, self._environment, CODEC_TIMES_FILE)
        payloads = None if transport is None else make_payloads(bundle, runner, threads=threads, cache=times)
        self._engine = Engine(
            bundle,
            runner,
            policy=self._policy,
            latency=self._latency,
            budgets=self._budgets,
            clock=monotonic_ms,
            emit=self._recorder.emit,
            transport=transport,
            spending=self._spending,
            audits=None if guarantee is None else guarantee.terms,
            packing=None if payloads is None else payloads.packing,
            encode_ms=None if payloads is None else payloads.encode_ms,
        )
        self._teller.guarantee(guarantee)
        parts.enter_context(self._engine)
        self._open_sinks(bundle)
        started = self._started(bundle, profile.name, played, stage_ms)
        self._budgets.replace(make_budgets(config.budget, latest=self._latest, origin_ms=started.started_ms))
        self._running = True
        self._recorder.note(started)
        self._teller.introduce(started, profile.title)
        parts.enter_context(
            BoardSampler(
                config.readings_interval_s,
                monotonic_ms,
                sensors=profile.sensors,
                on_reading=self._on_reading,
            )
        )
        capture = Capture(
            make_reader(config.source, monotonic_ms),
            self._slot,
            rate_hz=config.source.frame_rate_hz,
            clock=monotonic_ms,
            drop=self._recorder.emit,
            trouble=self._teller.source,
        )
        capture.open()
        parts.callback(capture.close)

    def run(self) -> int:
        """Answer frames until the source ends or a signal comes; the exit status."""
        signals, slot, teller = self._signals, self._slot, self._teller
        while not signals.stopping:
            frame = slot.take(IDLE_S)
            if frame is not None:
                self._answer(frame)
                if not slot.waiting:
                    self._engine.spend_moment()
            elif slot.exhausted:
                break
            else:
                self._engine.idle()
            teller.ready()
            if signals.reload_wanted:
                signals.reload_wanted = False
                self._reload()
            teller.keep_in_touch(monotonic_ms())
        # A source that broke down is not a source that came to its end.
        return 1 if teller.trouble is not None and not signals.stopping else 0

    def _answer(self, frame: Frame) -> None:
        self._in_hand = frame
        self._budgets.begin(frame.captured_ms)
        try:
            self._engine.answer(frame)
        except DataError as error:
            self._drop(frame, "unreadable", str(error))
        except RunnerError as error:
            self._drop(frame, "stage-failed", str(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours must not cost the frames to come
            _log.exception("frame %d of %s", frame.number, frame.source)
            self._drop(frame, "stage-failed", type(error).__name__)
        self._in_hand = None

    def _drop(self, frame: Frame, reason: str, why: str) -> None:
        """Record that a frame gets no answer, unless the deadline's timer was there before."""
        if self._recorder.answered != frame.number:
            _log.warning("frame %d of %s is dropped as %s: %s", frame.number, frame.source, reason, why)
            self._recorder.emit(dropped(frame, reason))

    def _reload(self) -> None:
        """Read budget and policy again; what cannot be read leaves those before in force."""
        if self._config_file is None:
            return
        try:
            config = load_config(self._config_file, environment=self._environment)
            # What a watch has found out about these very thresholds stays.
            same = config.policy == self._guaranteed
            guarantee = self._guarantee if same else self._make_guarantee(config)
            policy = choose_policy(config.policy, self._bundle.manifest, self._variants, guarantee)
            budgets = make_budgets(config.budget, latest=self._latest, origin_ms=monotonic_ms())
        except EdgeExitError as error:
            _log.warning("%s; budget and policy stay as they were", error)
            return
        self._policy.replace(policy)
        self._budgets.replace(budgets)
        if not same:
            self._guarantee, self._guaranteed = guarantee, config.policy
            self._teller.guarantee(guarantee)
            self._engine.audit_by(None if guarantee is None else guarantee.terms)
        _log.info("budget and policy were read again from %s", self._config_file)

    def _make_guarantee(self, config: DeviceConfig) -> Guarantee | None:
        return make_guarantee(
            config.policy,
            self._bundle.manifest,
            self._variants,
            device=config.device,
            on_breach=self._on_breach,
        )

    def _on_breach(self, breach: Breach) -> None:
        """In the loop's thread, between frames: say and record that early exits have drifted."""
        guarantee = self._guarantee
        if guarantee is None or guarantee.watch is None:
            return
        state = guarantee.watch.state
        self._recorder.note(
            DriftFound(
                at_ms=monotonic_ms(),
                state=state,
                audits=breach.audits,
                disagreements=breach.disagreements,
                risk=breach.risk,
                epsilon=breach.epsilon,
                thresholds=breach.thresholds,
            )
        )
        self._teller.drift(drift_found(breach, state))

    def _open_sinks(self, bundle: Bundle) -> None:
        results = self._config.results
        if results is not None:
            file = ResultsFile(Path(results.path), cap_bytes=results.cap_bytes, trouble=_tell)
            file.open()
            self._recorder.add(Outbox(file, "results-file"))
        if self._control is not None:
            publisher = ResultPublisher(self._control, bundle.manifest.labels)
            self._recorder.add(Outbox(publisher, "results-mqtt"))

    def _started(
        self, bundle: Bundle, board: str, played: PlayedBoard | None, stage_ms: tuple[float, ...]
    ) -> RunStarted:
        return RunStarted(
            device=self._config.device,
            bundle=bundle.manifest.name,
            bundle_digest=bundle.digest,
            variants=self._variants,
            stage_ms=stage_ms,
            board=board,
            played_board=None if played is None else played.name,
            slowdown=None if played is None else played.factor,
            policy=self._policy.name,
            started_ms=monotonic_ms(),
            unix_s=time.time(),
        )

    def _on_reading(self, readings: Readings) -> None:
        """In the sampling thread: record the reading, publish a snapshot."""
        self._recorder.note(readings)
        self._spending.power(readings.power_w)
        loop = LoopState(
            budget_ms=self._budgets.budget(readings.at_ms).latency_ms,
            slowdown=self._latency.slowdown.mean,
            link_up=None if self._control is None else self._control.is_up,
            drift=None if self._guarantee is None else self._guarantee.status,
            audits_skipped=self._engine.audits_skipped,
        )
        self._teller.reading(readings, loop)

    def _on_stop(self) -> None:
        """In the signal handler: only set what others look at."""
        self._budgets.stop_by(monotonic_ms() + ANSWER_WITHIN_MS)
        self._guard.begin()

    def _finish(self) -> None:
        """The last record and the last word, once, when no frame is answered any more."""
        if self._running:
            self._running = False
            self._recorder.finish(monotonic_ms())
            _log.info("%s", self._teller.summary())

    def _finish_in_haste(self) -> None:
        """In the guard's thread: something hangs; write down what is known before the process is ended."""
        frame = self._in_hand
        if frame is not None and self._recorder.answered != frame.number:
            self._recorder.emit(dropped(frame, "shutdown"))
        self._slot.close()
        self._finish()


def _tell(error: DeviceError) -> None:
    _log.warning("%s", error)
