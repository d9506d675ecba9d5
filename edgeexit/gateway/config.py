"""Configuration of the gateway program: one TOML table `[gateway]`, overridden by flags."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import msgspec

from edgeexit.board.host_name import host_id
from edgeexit.board.settings import parse_toml
from edgeexit.bundle.trust import Trust, configured_trust
from edgeexit.errors import ConfigError
from edgeexit.runner.onnx import Provider
from edgeexit.transport.address import Credentials, parse_broker
from edgeexit.transport.topics import require_id

ConfigValue = str | int | float | bool | Path | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How one gateway runs.

    `concurrency` is how many requests are served at a time, each by a worker with interpreters of its own;
    None means one per processor and `threads`. `threads` is what one interpreter may use.
    `provider` is what ONNX Runtime computes with, for bundles that have ONNX variants.
    `pool` also serves requests sent to no gateway in particular. With `trusted_keys`, only bundles that one
    of them signed are served; `least_serials` says by bundle name how old a bundle may be.
    Raises: ConfigError, naming the key, on a value that cannot be meant.
    """

    store: Path
    id: str = ""
    broker: str = "mqtt://127.0.0.1:1883"
    concurrency: int | None = None
    threads: int = 1
    provider: Provider = "cpu"
    queue_limit: int = 32
    bundle_limit: int = 16
    pool: bool = True
    log_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    trusted_keys: tuple[str, ...] = ()
    least_serials: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", host_id("gateway"))
        require_id(self.id, key="id")
        parse_broker(self.broker)
        configured_trust(self.trusted_keys, self.least_serials or {}, key="trusted_keys")
        bounds = {"threads": self.threads, "queue_limit": self.queue_limit, "bundle_limit": self.bundle_limit}
        if self.concurrency is not None:
            bounds["concurrency"] = self.concurrency
        for key, value in bounds.items():
            # The upper end only catches slips of the hand: a thread or queue place costs real memory.
            if not 1 <= value <= 1024:
                raise _refused(key, str(value), why="it must lie between 1 and 1024")

    @property
    def trust(self) -> Trust:
        """Whose bundles are served."""
        return configured_trust(self.trusted_keys, self.least_serials or {}, key="trusted_keys")

    @property
    def credentials(self) -> Credentials:
        """Who the gateway is to its broker."""
        return Credentials(
            username=self.username,
            password_file=self.password_file,
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
        )

    @property
    def workers(self) -> int:
        """How many requests are served at a time."""
        if self.concurrency is not None:
            return self.concurrency
        return max(1, (os.cpu_count() or 1) // self.threads)


def read_config(file: Path | None, flags: Mapping[str, ConfigValue]) -> GatewayConfig:
    """The configuration of a file, overridden by those flags that are not None.

    Raises: ConfigError, naming file and key.
    """
    values: dict[str, object] = {} if file is None else _read_table(file)
    values.update({key: value for key, value in flags.items() if value is not None})
    known = {field.name: field for field in fields(GatewayConfig)}
    name = None if file is None else str(file)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]}?" if near else "remove it"
            why = f"known keys: {', '.join(known)}"
            raise ConfigError(f"{key} is no setting of the gateway", file=name, key=key, why=why, fix=fix)
    for key, field in known.items():
        if key not in values and field.default is MISSING:
            raise ConfigError(
                f"the gateway needs {key}",
                file=name,
                key=key,
                why=f"{key} has no default",
                fix=f"set {key} in the file or as a flag",
            )
    try:
        return msgspec.convert(values, GatewayConfig, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ConfigError("gateway configuration is refused", file=name, why=str(error)) from error
    except ConfigError as error:
        error.file = name
        raise


def _read_table(file: Path) -> dict[str, object]:
    """The `[gateway]` table of a TOML file."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read", file=str(file), why=error.strerror) from error
    tables = parse_toml(content, file=str(file))
    for name in tables:
        if name != "gateway":
            raise ConfigError(
                f"table [{name}] is unknown",
                file=str(file),
                key=name,
                why="a gateway's file has one table",
                fix="settings stand in [gateway]",
            )
    table = tables.get("gateway", {})
    if not isinstance(table, dict):
        raise ConfigError(
            "gateway is no table",
            file=str(file),
            key="gateway",
            why="it has a value there, where settings below it are wanted",
            fix="begin it with [gateway]",
        )
    return table


def _decode_path(kind: type, value: object) -> object:
    """Paths travel as strings in TOML."""
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"expected a path, got {value!r}")


def _refused(key: str, value: str, *, why: str) -> ConfigError:
    return ConfigError(f"{key} = {value!r} is refused", key=key, why=why)
