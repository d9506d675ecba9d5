"""From the configuration to real parts: sources, budgets, the board, the way to gateways."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeexit.board.identify import identify
from edgeexit.board.profile import Profile, read_profile
from edgeexit.bundle.store import Bundle
from edgeexit.decide.budget import Budget, BudgetSource, FixedBudget, LatestBudget, ScheduleBudget
from edgeexit.device.budgets import BudgetTable, FileBudget
from edgeexit.device.capture import Clock, Reader
from edgeexit.device.clock import PlayedClock, monotonic_ms, processor_ms
from edgeexit.device.config import BrokerConfig, BudgetConfig, DeviceConfig, PlayConfig, SourceConfig
from edgeexit.device.control import Control
from edgeexit.device.directory import DirectoryReader
from edgeexit.device.memory import give_back_memory
from edgeexit.device.video import CameraReader, VideoReader
from edgeexit.errors import ConfigError
from edgeexit.runner.cadence import times_between_frames
from edgeexit.runner.paced import PacedRunner
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.selection import open_verified
from edgeexit.transport.address import Credentials, parse_broker
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.offload import MqttTransport
from edgeexit.transport.offload import OffloadConfig as OffloadLink
from edgeexit.transport.protocol import Transport

_log = logging.getLogger(__name__)

# The selection of variants, and the times of codecs, are kept under these names in the state folder.
SELECTION_FILE = "selection.json"
CODEC_TIMES_FILE = "codec_times.json"

# A nanosecond clock sees nothing shorter than this of a stage.
SHORTEST_STAGE_MS = 1e-3


@dataclass(frozen=True, slots=True)
class PlayedBoard:
    """A slower board that this machine plays; `name` is None where only a factor was given."""

    name: str | None
    factor: float


def make_reader(config: SourceConfig, clock: Clock) -> Reader:
    """The reader of the source. Raises: DeviceError for a camera that has no such name."""
    if config.kind == "directory":
        return DirectoryReader(Path(config.path), loop=config.loop, clock=clock)
    if config.kind == "video":
        return VideoReader(Path(config.path), loop=config.loop, clock=clock)
    return CameraReader(config.path, clock=clock, rate_hz=config.frame_rate_hz)


def make_budgets(config: BudgetConfig, *, latest: LatestBudget, origin_ms: float) -> BudgetSource:
    """The budget source; `latest` is the one that MQTT messages set.

    Raises: ConfigError for a schedule out of order, a file that holds no budget, or a figure that is none.
    """
    if config.kind == "schedule":
        steps = [
            (
                step.start_ms,
                _budget(step.latency_ms, step.energy_mj, step.uplink_bytes, key=f"budget.steps[{index}]"),
            )
            for index, step in enumerate(config.steps)
        ]
        return ScheduleBudget(steps, origin_ms=origin_ms, period_ms=config.period_ms)
    if config.kind == "file" and config.path is not None:
        budgets = FileBudget(Path(config.path), trouble=_tell_of_budget)
        budgets.open()
        return budgets
    if config.kind == "mqtt":
        return latest
    return FixedBudget(first_budget(config))


def first_budget(config: BudgetConfig) -> Budget:
    """The figure in the configuration; one second where the kind of budget has none of its own."""
    if config.latency_ms is None:
        return Budget(1000.0)
    return _budget(config.latency_ms, config.energy_mj, config.uplink_bytes, key="budget")


def _budget(latency_ms: float, energy_mj: float | None, uplink_bytes: int | None, *, key: str) -> Budget:
    table = BudgetTable(latency_ms=latency_ms, energy_mj=energy_mj, uplink_bytes=uplink_bytes)
    return table.budget(key=f"{key}.latency_ms")


def _tell_of_budget(error: ConfigError) -> None:
    _log.warning("%s; the budget before stays in force", error)


def find_profile(name: str | None) -> Profile:
    """The named profile, else that of the machine this is. Raises: ConfigError."""
    return identify() if name is None else read_profile(name)


def sending_mj_per_byte(config: DeviceConfig, profile: Profile) -> float | None:
    """What sending a byte takes here, as the configuration says, else the board's profile; None unknown."""
    configured = config.offload.sending_mj_per_byte
    if configured is not None or profile.radio is None:
        return configured
    return profile.radio.sending_mj_per_byte


def played_board(config: PlayConfig) -> PlayedBoard | None:
    """The slower board to play, if any. Raises: ConfigError where nobody knows how much slower it is."""
    if config.factor is not None:
        return PlayedBoard(None, config.factor)
    if config.board is None:
        return None
    slowdown = read_profile(config.board).slowdown
    if slowdown is None:
        raise ConfigError(
            f"{config.board} cannot be played",
            key="play.board",
            why="its profile does not say how much slower it is than this kind of machine",
            fix="give play.factor instead",
        )
    return PlayedBoard(config.board, slowdown.factor)


def make_runner(
    config: DeviceConfig,
    bundle: Bundle,
    profile: Profile,
    played: PlayedBoard | None,
    environment: Mapping[str, str],
) -> tuple[Runner, tuple[float, ...]]:
    """A runner of the variants that proved correct here, and what each stage takes between frames.

    Raises: RunnerError and its leaves, MissingExtra, BundleError.
    """
    threads = config.threads or profile.runtime.threads
    cache = state_file(config, environment, SELECTION_FILE)
    # With one thread all computing is done by the caller's own, and its processor time is the truth.
    clock = processor_ms if played is not None and threads == 1 else monotonic_ms
    runner, report = open_verified(bundle, threads=threads, cache=cache, clock=clock)
    for rejected in report.rejected():
        _log.warning("stage %d, variant %s is not used: %s", rejected.stage, rejected.variant, rejected.why)
    give_back_memory()
    used: Runner = runner
    if played is not None and threads == 1:
        own = PlayedClock()
        used = PacedRunner(runner, played.factor, own.now_ms, own.sleep)
    elif played is not None:
        used = PacedRunner(runner, played.factor, monotonic_ms)
    return used, rehearse(bundle, used)


def rehearse(bundle: Bundle, runner: Runner) -> tuple[float, ...]:
    """Run a black image through all stages a few times: what each takes when frames come one by one.

    So the first frame does not pay for what is loaded late, either.
    Raises: RunnerError, MissingExtra.
    """
    how = bundle.manifest.preprocessing
    # Of twice the size, because most sources need resizing, and the library for it is loaded late.
    black = np.zeros((2 * how.height, 2 * how.width), dtype=np.uint8)  # (2 H, 2 W)
    tensors: Tensors = input_tensors(black, how, bundle.manifest.boundaries[0].tensors[0])
    times_ms = times_between_frames(runner, tensors, clock=monotonic_ms)
    # A stage of a toy network can be too quick for the clock; the model of latencies needs a time.
    return tuple(max(stage_ms, SHORTEST_STAGE_MS) for stage_ms in times_ms)


def state_file(config: DeviceConfig, environment: Mapping[str, str], name: str) -> Path | None:
    """Where what was measured is kept: in the configured folder, else systemd's; None without both."""
    folder = config.state or environment.get("STATE_DIRECTORY")
    # systemd lists several folders with colons between them; the first is ours.
    return None if not folder else Path(folder.split(":")[0]) / name


def make_control(config: DeviceConfig, boot_id: str, latest: LatestBudget) -> Control | None:
    """The control connection, not opened; None without a broker. Raises: ConfigError."""
    if config.broker is None:
        return None
    return Control(
        config.device,
        boot_id=boot_id,
        address=parse_broker(config.broker.url),
        credentials=broker_credentials(config.broker),
        on_budget=latest.set,
    )


def make_transport(config: DeviceConfig, bundle: Bundle) -> Transport | None:
    """The way to gateways, which the engine opens; None where offloading is off or there is no broker.

    Raises: ConfigError.
    """
    broker, offload = config.broker, config.offload
    if broker is None or not offload.enabled:
        return None
    exits = bundle.manifest.exits
    sizes = {each.output.size for each in exits}
    return MqttTransport(
        OffloadLink(
            broker=parse_broker(broker.url),
            device=config.device,
            credentials=broker_credentials(broker),
            qos=offload.qos,
            pool=offload.pool,
        ),
        ServedBundle(
            digest=bundle.digest,
            stage_count=len(exits),
            output_size=sizes.pop() if len(sizes) == 1 else None,
        ),
        clock=monotonic_ms,
    )


def broker_credentials(config: BrokerConfig) -> Credentials:
    """Who we are to the broker; the files are read when the connection is opened."""
    return Credentials(
        username=config.user,
        password_file=_path(config.password_file),
        ca_file=_path(config.ca_file),
        certificate_file=_path(config.certificate_file),
        key_file=_path(config.key_file),
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
