"""Configuration of the daemon: TOML, `conf.d` beside it, then the environment, then flags."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Literal

import msgspec

from edgeexit.board.host_name import host_id
from edgeexit.board.settings import Table, decode_settings, parse_toml, refuse_unknown
from edgeexit.bundle.trust import TrustSettings
from edgeexit.decide.drift import AUDIT_FRACTION
from edgeexit.errors import ConfigError
from edgeexit.transport.topics import require_id

# Only variables that begin so are looked at: EDGEEXIT__BUDGET__LATENCY_MS sets budget.latency_ms.
ENVIRONMENT_PREFIX = "EDGEEXIT__"


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen and strict."""


class SourceConfig(_Settings, frozen=True, kw_only=True):
    """Where images come from.

    `path` is a folder, a video file, or a camera (`/dev/video0` or `0`). Without `frame_rate_hz` a folder
    is read as fast as frames are answered, a video file at its own rate; `loop` begins again at the end.
    """

    kind: Literal["directory", "video", "camera"]
    path: str
    frame_rate_hz: float | None = None
    loop: bool = False


class BudgetStep(_Settings, frozen=True, kw_only=True):
    """A budget that begins at `start_ms`, counted from the start of the run."""

    start_ms: float
    latency_ms: float
    energy_mj: float | None = None
    uplink_bytes: int | None = None


class BudgetConfig(_Settings, frozen=True, kw_only=True):
    """What an answer may cost: one figure, a schedule, a file, or whatever was last told over MQTT.

    With `mqtt`, `latency_ms` holds until the first message comes.
    """

    kind: Literal["fixed", "schedule", "file", "mqtt"] = "fixed"
    latency_ms: float | None = None
    energy_mj: float | None = None
    uplink_bytes: int | None = None
    steps: tuple[BudgetStep, ...] = ()
    period_ms: float | None = None
    path: str | None = None


class BrokerConfig(_Settings, frozen=True, kw_only=True):
    """The MQTT broker, as `mqtt://host:1883` or `mqtts://host`; without this table the device works alone."""

    url: str
    user: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


class OffloadConfig(_Settings, frozen=True, kw_only=True):
    """Whether and how gateways are asked.

    `byte_price` is the quality that one uplink byte must buy; with `bytes_per_s` a further price rises and
    falls so that payloads come to so many bytes a second in the long run. `sending_mj_per_byte` is what the
    radio takes, where somebody measured it and the board's profile does not say. `pool` lets the broker pick
    a gateway where none says that it is there; `qos` is that of tensors.
    """

    enabled: bool = True
    pool: bool = False
    qos: Literal[0, 1] = 0
    byte_price: float = 0.0
    bytes_per_s: float | None = None
    sending_mj_per_byte: float | None = None


GuaranteeName = Literal["accuracy-drop", "inconsistency"]
PolicyName = Literal["hedged-gain", "anytime-local", "always-local", "first-exit", "always-offload"]


class PolicyConfig(_Settings, frozen=True, kw_only=True):
    """How decisions are taken.

    With `epsilon`, the bundle's risk control certified for that risk (or the nearest stricter one) lets
    frames leave early; `hedged-gain` only. `guarantee` says which risk: answers lost against the last
    exit, or answers that are not the last exit's. `audit_fraction` is the share of frames that gateways
    are asked about, to notice when the guarantee no longer holds; 0 turns that off. With `power_mw`, and
    a sensor that tells the board's power, stages have a price that keeps what they use to so many
    milliwatts in the long run, and so does sending where it is known what it takes.
    """

    name: PolicyName = "hedged-gain"
    epsilon: float | None = None
    guarantee: GuaranteeName = "accuracy-drop"
    audit_fraction: float = AUDIT_FRACTION
    power_mw: float | None = None


class PlayConfig(_Settings, frozen=True, kw_only=True):
    """Play a slower board: stage times are stretched by its profile's factor, or by the factor given."""

    board: str | None = None
    factor: float | None = None


class ResultsConfig(_Settings, frozen=True, kw_only=True):
    """The results file; beyond `cap_bytes` it is kept once as `<path>.1` and begun anew."""

    path: str
    cap_bytes: int = 64 << 20


class DeviceConfig(_Settings, frozen=True, kw_only=True):
    """How one device runs.

    `board` and `threads` are found by looking at the machine where not given. `state` is a folder where
    the daemon keeps what it measured (which variants are right and fast here, what codecs take) for its next
    start. `trust` says whose bundles may run.
    """

    source: SourceConfig
    device: str = ""
    bundle: str = "/var/lib/edgeexit/current"
    board: str | None = None
    threads: int | None = None
    state: str | None = None
    readings_interval_s: float = 5.0
    budget: BudgetConfig = BudgetConfig(latency_ms=100.0)
    broker: BrokerConfig | None = None
    offload: OffloadConfig = OffloadConfig()
    policy: PolicyConfig = PolicyConfig()
    trust: TrustSettings = TrustSettings()
    play: PlayConfig = PlayConfig()
    results: ResultsConfig | None = None


def load_config(
    path: Path | None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Table | None = None,
) -> DeviceConfig:
    """The configuration: the file, `conf.d/*.toml` beside it by name, the environment, then the flags.

    Raises: ConfigError naming file and key.
    """
    merged: dict[str, object] = {}
    layers: list[tuple[str, Table]] = []
    if path is not None:
        layers.append((str(path), _read(path)))
        layers += [(str(extra), _read(extra)) for extra in sorted((path.parent / "conf.d").glob("*.toml"))]
    layers.append(("the environment", _from_environment(environment or {})))
    layers.append(("the command line", flags or {}))
    for file, table in layers:
        refuse_unknown(table, DeviceConfig, file=file)
        merged = _merge(merged, table)
    name = str(path) if path is not None else "the command line"
    config = decode_settings(merged, DeviceConfig, file=name)
    if not config.device:
        config = msgspec.structs.replace(config, device=host_id("device"))
    _check(config, file=name)
    return config


def _read(path: Path) -> Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"configuration {path} cannot be read",
            file=str(path),
            why=error.strerror,
            fix="name a file that exists and may be read",
        ) from error
    return parse_toml(content, file=str(path))


def _from_environment(environment: Mapping[str, str]) -> Table:
    """Variables such as EDGEEXIT__BUDGET__LATENCY_MS=80 as tables."""
    table: dict[str, object] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        value: object = _toml_value(text)
        for part in reversed(name[len(ENVIRONMENT_PREFIX) :].lower().split("__")):
            value = {part: value}
        if isinstance(value, Mapping):
            table = _merge(table, value)
    return table


def _toml_value(text: str) -> object:
    """The text as a TOML value where it is one (80, true, [1, 2]), else as the plain string it is."""
    try:
        return parse_toml(f"value = {text}".encode(), file="the environment")["value"]
    except (ConfigError, UnicodeEncodeError):
        return text


def _merge(below: Table, above: Table) -> dict[str, object]:
    """Both tables, `above` winning key by key; lists are replaced, not joined."""
    merged = dict(below)
    for key, value in above.items():
        beneath = merged.get(key)
        if isinstance(beneath, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(beneath, value)
        else:
            merged[key] = value
    return merged


def _check(config: DeviceConfig, *, file: str) -> None:
    """What types cannot say. Raises: ConfigError."""

    def refuse(key: str, why: str) -> ConfigError:
        return ConfigError(f"{file}: {key} cannot be used", file=file, key=key, why=why)

    try:
        require_id(config.device, key="device")
    except ConfigError as error:
        raise ConfigError(error.what, file=file, key="device", why=error.why, fix=error.fix) from error
    try:
        config.trust.trust()
    except ConfigError as error:
        raise ConfigError(error.what, file=file, key=error.key, why=error.why, fix=error.fix) from error
    rate_hz, factor = config.source.frame_rate_hz, config.play.factor
    if rate_hz is not None and not 0.0 < rate_hz <= 1000.0:
        raise refuse("source.frame_rate_hz", "a frame rate lies above 0 and at most at 1000")
    if config.threads is not None and not 1 <= config.threads <= 64:
        raise refuse("threads", "between 1 and 64 threads make sense")
    if not 0.1 <= config.readings_interval_s <= 3600.0:
        raise refuse("readings_interval_s", "between 0.1 and 3600 seconds make sense")
    if config.results is not None and config.results.cap_bytes < 4096:
        raise refuse("results.cap_bytes", "a results file holds at least 4096 bytes")
    if not 0.0 <= config.offload.byte_price < float("inf"):
        raise refuse("offload.byte_price", "a price is zero or more, and finite")
    mj_per_byte = config.offload.sending_mj_per_byte
    if mj_per_byte is not None and not 0.0 <= mj_per_byte < float("inf"):
        raise refuse("offload.sending_mj_per_byte", "energy is zero or more, and finite")
    for key, long_run in (
        ("offload.bytes_per_s", config.offload.bytes_per_s),
        ("policy.power_mw", config.policy.power_mw),
    ):
        if long_run is not None and not 0.0 < long_run < float("inf"):
            raise refuse(key, "a long-run budget is above zero, and finite")
    if config.policy.epsilon is not None and config.policy.name != "hedged-gain":
        raise refuse("policy.epsilon", "only hedged-gain leaves early under a risk control")
    if not 0.0 <= config.policy.audit_fraction <= 1.0:
        raise refuse("policy.audit_fraction", "a fraction lies between 0 and 1")
    if factor is not None and (config.play.board is not None or not (isfinite(factor) and factor >= 1.0)):
        raise refuse("play.factor", "give a factor of at least 1, or a board, not both")
    _check_budget(config, refuse_file=file)


def _check_budget(config: DeviceConfig, *, refuse_file: str) -> None:
    budget = config.budget
    wanted = {
        "fixed": ("latency_ms", budget.latency_ms),
        "schedule": ("steps", budget.steps or None),
        "file": ("path", budget.path),
        "mqtt": ("latency_ms", budget.latency_ms),
    }
    key, value = wanted[budget.kind]
    if value is None:
        raise ConfigError(
            f"{refuse_file}: budget.{key} is missing",
            file=refuse_file,
            key=f"budget.{key}",
            why=f"a budget of kind {budget.kind} needs it",
        )
    if budget.kind == "mqtt" and config.broker is None:
        raise ConfigError(
            f"{refuse_file}: broker is missing",
            file=refuse_file,
            key="broker.url",
            why="a budget of kind mqtt needs one",
        )
