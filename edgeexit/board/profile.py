"""What is particular to one kind of board, read from its TOML profile. Unknown stays absent."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal

import msgspec

from edgeexit.board.files import board_file, board_names
from edgeexit.board.settings import decode_settings, parse_toml
from edgeexit.errors import ConfigError, DeviceError


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen and strict."""


class Identity(_Table, frozen=True):
    """How a running board is recognised: the start of its firmware's model name, and files it must have."""

    model_prefixes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Hardware(_Table, frozen=True):
    """What the board is made of. Units: memory_bytes, the sizes it is sold with; cpu_max_hz."""

    soc: str | None = None
    architecture: str | None = None
    cpu: str | None = None
    cores: int | None = None
    cpu_max_hz: float | None = None
    memory_bytes: tuple[int, ...] = ()
    accelerator: str | None = None
    source: str | None = None


class RuntimeChoice(_Table, frozen=True):
    """Which runtime to try, best first, and with how many threads."""

    order: tuple[str, ...]
    threads: int = 1
    note: str | None = None


class Sensors(_Table, frozen=True):
    """Where the board shows how it feels; an empty list means no such sensor is known.

    `thermal_zones` are types of thermal zones (empty: the hottest zone counts), `power_rails` labels of
    hwmon channels whose sum is the power of the whole board.
    """

    thermal_zones: tuple[str, ...] = ()
    power_rails: tuple[str, ...] = ()
    throttling: Literal["vcgencmd", "cooling-device"] | None = None


class Radio(_Table, frozen=True):
    """What sending takes, as somebody measured it on this board: what is drawn beyond the idle board's power.

    Units: sending_mj_per_byte, of the payload.
    """

    sending_mj_per_byte: float
    source: str


class NetworkTime(_Table, frozen=True):
    """Time of one forward pass of a whole network on this board, as somebody published it."""

    network: str
    runtime: str
    precision: Literal["f32", "f16", "int8"]
    batch: int
    time_ms: float
    source: str


class Slowdown(_Table, frozen=True):
    """How much slower than one x86-64 reference core the board computes; used to play it on a bigger machine.

    factor = board_ms / reference_ms, both for the same network and precision.
    """

    factor: float
    network: str
    precision: Literal["f32", "f16", "int8"]
    board_ms: float
    board_source: str
    reference_ms: float
    reference: str


class Profile(_Table, frozen=True, kw_only=True):
    """One kind of board."""

    name: str
    title: str
    identity: Identity = Identity()
    hardware: Hardware = Hardware()
    runtime: RuntimeChoice
    sensors: Sensors = Sensors()
    radio: Radio | None = None
    times: tuple[NetworkTime, ...] = ()
    slowdown: Slowdown | None = None


def read_profile(name: str) -> Profile:
    """The shipped profile of this name.

    Raises: ConfigError when there is none, or it cannot be read: the message names file and key.
    """
    try:
        content = board_file(f"profiles/{name}.toml").read_bytes()
    except DeviceError as error:
        names = board_names()
        nearest = get_close_matches(name, names, n=1)
        raise ConfigError(
            f"no board profile named {name!r}",
            key="board",
            why=f"known boards: {', '.join(names)}",
            fix=f"did you mean {nearest[0]}?" if nearest else "choose a known board",
        ) from error
    return parse_profile(content, file=f"devices/profiles/{name}.toml", name=name)


def parse_profile(content: bytes, *, file: str, name: str) -> Profile:
    """A profile from the bytes of its file.

    Raises: ConfigError naming file and key.
    """
    profile = decode_settings(parse_toml(content, file=file), Profile, file=file)
    if profile.name != name:
        raise ConfigError(
            f"{file}: name cannot be used",
            file=file,
            key="name",
            why=f"the file is of {name}, the name says {profile.name}",
        )
    radio, slowdown = profile.radio, profile.slowdown
    if radio is not None and not 0.0 <= radio.sending_mj_per_byte < float("inf"):
        raise ConfigError(
            f"{file}: radio.sending_mj_per_byte cannot be used",
            file=file,
            key="radio.sending_mj_per_byte",
            why="energy is zero or more, and finite",
        )
    if slowdown is not None and not (slowdown.factor >= 1.0 and slowdown.reference_ms > 0.0):
        raise ConfigError(
            f"{file}: slowdown.factor cannot be used",
            file=file,
            key="slowdown.factor",
            why="a board is played by stretching times: the factor is at least 1",
        )
    return profile
