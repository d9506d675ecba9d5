"""From the words of `edgeexit simulate` to rows of a grid: one for every link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from edgeexit.board.profile import read_profile
from edgeexit.decide.spending import checked_mj_per_byte
from edgeexit.errors import ConfigError
from edgeexit.replay.contenders import FLOOR, OWN, contenders
from edgeexit.replay.controller import ControllerFactory
from edgeexit.replay.deadlines import Constant, Redrawn
from edgeexit.replay.delays import MEASURED, LinkDelay, constant_delay
from edgeexit.replay.links import Link, read_links
from edgeexit.replay.pool import Fleet, QueueOrder
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recorded_run import profile_of
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import (
    BANDS,
    PERIOD,
    PI_4_MS,
    PI_5_MS,
    GridRow,
    grid_row,
    vit_tiny,
)
from edgeexit.replay.world import EnergyTerms

# The name that stands for the machine that made the recording.
THIS = "this"
# Published times of a whole ViT-Tiny; boards without one can only be played with recorded costs.
VIT_TINY_MS = {"raspberry-pi-4": PI_4_MS, "raspberry-pi-5": PI_5_MS}
DEADLINES = (*BANDS, "sine", "bursts", "cut", "extended")
CONTENTION = ("none", "x1.8", "x3", "thermal")
OUTAGES = ("none", "each-minute", "black-hole", "gateway-dead")


@dataclass(frozen=True, slots=True)
class GridWords:
    """What was asked for. Units: deadlines_ms, each a latency budget; empty takes `deadlines`."""

    traces: Path
    scale: float
    board: str
    costs: str
    deadlines: str
    deadlines_ms: tuple[float, ...]
    contention: str
    outages: str
    frames: int
    seconds: float | None
    byte_price: float
    round_trip: str | None = None
    """A measured link by name, or a constant in ms; by the trace's name where None."""
    devices: int = 1
    workers: int = 1
    queue: str = QueueOrder.EARLIEST_DEADLINE.value
    bytes_per_s: float | None = None
    energy: EnergyTerms | None = None


def grid_of(words: GridWords, recording: Recording) -> list[GridRow]:
    """A row for every trace. Raises: ConfigError for a word that means nothing; TraceError."""
    for key, word, known in (
        ("deadlines", words.deadlines, DEADLINES),
        ("contention", words.contention, CONTENTION),
        ("outages", words.outages, OUTAGES),
        ("costs", words.costs, ("recorded", "vit-tiny")),
        ("queue", words.queue, tuple(order.value for order in QueueOrder)),
    ):
        _known(key, word, known)
    for budget_ms in words.deadlines_ms:
        if not 0.0 < budget_ms < float("inf"):
            raise ConfigError(
                f"a deadline of {budget_ms:g} ms is refused",
                key="deadline-ms",
                why="a budget is what a frame may take: finite, and more than 0",
                fix="give --deadline-ms milliseconds, such as 60,100,150",
            )
    if words.bytes_per_s is not None and not 0.0 < words.bytes_per_s < float("inf"):
        raise ConfigError(
            f"a budget of {words.bytes_per_s:g} bytes a second is refused",
            key="bytes-per-s",
            why="--bytes-per-s is what may be sent on average: finite, and more than 0",
            fix="give --bytes-per-s in bytes, such as 20000, or leave it out",
        )
    if not 0.0 < words.scale < float("inf"):
        raise ConfigError(
            f"a scale of {words.scale:g} is refused",
            key="scale",
            why="rates of traces are multiplied by --scale: finite, and more than 0",
            fix="give --scale a factor such as 0.333, or 1 to take the rates as they are",
        )
    profile = cost_profile(words, recording)
    links = read_links(words.traces, downlink_scale=words.scale)
    if words.round_trip is not None:
        delay = delay_of(words.round_trip)
        links = [replace(link, delay=delay) for link in links]
    return [_row(words, profile, link) for link in links]


def energy_of(
    power_mw: float | None, *, board_mw: float | None, sending_mj_per_byte: float | None
) -> EnergyTerms | None:
    """The terms of a budget of energy; None without one. Raises: ConfigError."""
    if power_mw is None:
        if board_mw is not None or sending_mj_per_byte is not None:
            raise ConfigError(
                "energy has no budget",
                key="power-mw",
                why="--board-mw and --sending-mj-per-byte only say what counts against --power-mw",
                fix="add --power-mw, in milliwatts, or leave both out",
            )
        return None
    for key, value in (("power-mw", power_mw), ("board-mw", board_mw)):
        if value is not None and not 0.0 < value < float("inf"):
            raise ConfigError(
                f"a power of {value:g} mW is refused",
                key=key,
                why=f"--{key} is a power that is spent on average: finite, and more than 0",
                fix=f"give --{key} in milliwatts, or leave it out",
            )
    if sending_mj_per_byte is not None:
        checked_mj_per_byte(sending_mj_per_byte)
    return EnergyTerms(power_mw, board_mw, sending_mj_per_byte)


def delay_of(word: str) -> LinkDelay:
    """Round trips by the name of a measured link, or constant ones. Raises: ConfigError."""
    try:
        constant_ms = float(word)
    except ValueError:
        _known("round-trip", word, tuple(MEASURED))
        return MEASURED[word]
    if not 0.0 < constant_ms < float("inf"):
        raise ConfigError(
            f"a round trip of {word} ms is refused",
            key="round-trip",
            why="a constant round trip takes time: finite, and more than 0",
            fix=f"give --round-trip milliseconds, or one of {', '.join(MEASURED)}",
        )
    return constant_delay(constant_ms)


def chosen_policies(names: Sequence[str]) -> Mapping[str, ControllerFactory]:
    """The named policies, with the floor and the project's own beside them; all without a name.

    Raises: ConfigError.
    """
    made = contenders()
    for name in names:
        _known("policy", name, tuple(made))
    wanted = {OWN, FLOOR, *names} if names else set(made)
    return {name: make for name, make in made.items() if name in wanted}


def numbers_of(text: str | None, *, key: str) -> tuple[float, ...]:
    """Numbers such as `60,100,150`; none without a text. Raises: ConfigError."""
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{key} {text!r} is not understood",
            key=key,
            why=f"--{key} takes numbers with commas between",
            fix=f"such as --{key} 60,100,150",
        ) from None


def share_of(value: float, *, key: str) -> float:
    """The share that an option gives. Raises: ConfigError."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(
            f"a share of {value:g} is refused",
            key=key,
            why=f"--{key} is a share of the whole: it lies between 0 and 1",
            fix=f"give --{key} a number such as 0.05",
        )
    return value


def cost_profile(words: GridWords, recording: Recording) -> CostProfile:
    """What the recorded network costs on the board. Raises: ConfigError."""
    if words.costs == "vit-tiny":
        _known("board", words.board, tuple(VIT_TINY_MS))
        return vit_tiny(recording, words.board, VIT_TINY_MS[words.board])
    stage_ms = recording.note.stage_ms
    factor = 1.0
    if words.board != THIS:
        slowdown = read_profile(words.board).slowdown
        if slowdown is None:
            raise ConfigError(
                f"{words.board} cannot be played",
                key="board",
                why="its profile does not say how much slower it is than the machine that recorded",
                fix=f"another board, or --board {THIS}",
            )
        factor = slowdown.factor
    slower = [factor * each for each in stage_ms]
    return profile_of(recording, words.board, slower, stage_ms, encode_factor=factor)


def _row(words: GridWords, profile: CostProfile, link: Link) -> GridRow:
    period_ms = PERIOD * sum(profile.stage_ms)
    if words.deadlines_ms:
        # Frames stand alone: none comes before the longest budget of the one before is over.
        period_ms = max(period_ms, 1.2 * max(words.deadlines_ms))
    frames = words.frames if words.seconds is None else max(1, int(1000.0 * words.seconds / period_ms))
    row = grid_row(
        profile,
        link,
        board=words.board,
        frames=frames,
        deadlines=words.deadlines,
        contention=words.contention,
        outages=words.outages,
        byte_price=words.byte_price,
    )
    row = replace(row, scenario=replace(row.scenario, bytes_per_s=words.bytes_per_s, energy=words.energy))
    if words.devices > 1:
        fleet = Fleet(words.devices, words.workers, QueueOrder(words.queue))
        named = replace(row.scenario, name=f"{row.scenario.name}|{fleet.name}")
        row = replace(row, scenario=named, fleet=fleet)
    if not words.deadlines_ms:
        return row
    single = len(words.deadlines_ms) == 1
    rule = Constant(words.deadlines_ms[0]) if single else Redrawn(words.deadlines_ms)
    name = row.scenario.name.replace(f"|{words.deadlines}|", f"|{rule.name}|")
    scenario = replace(row.scenario, name=name, deadlines=rule, period_ms=round(period_ms, 1))
    return replace(row, scenario=scenario, deadlines=rule.name)


def _known(key: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        near = get_close_matches(word, known, n=1)
        raise ConfigError(
            f"{key} {word!r} is unknown",
            key=key,
            why=f"known: {', '.join(known)}",
            fix=f"did you mean {near[0]}?" if near else "choose a known one",
        )
