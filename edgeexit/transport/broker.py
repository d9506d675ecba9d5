"""A real MQTT broker as a child process: for demonstrations, tests and `--with-broker`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from edgeexit.errors import BrokerError, ConfigError, MissingProgram
from edgeexit.transport.address import BrokerAddress

BrokerKind = Literal["mosquitto", "iotcore"]

# The largest packet taken: two of our largest frames. mosquitto 2.0 refuses 0 for "no limit".
PACKET_CAP_BYTES = 2 * 1024 * 1024

# The C library gives every block over 128 kB back to the kernel as soon as it is free, and mosquitto takes
# several of a message's size for each: at 150 kB the way through it then takes twice as long, at 600 kB four
# times. Blocks of two packets, and some of them, are kept; one setting without the other makes it worse.
# Source: mallopt(3). Other C libraries do not look at these names.
KEPT_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2 * PACKET_CAP_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(8 * PACKET_CAP_BYTES),
}

# mosquitto listens after some 20 ms, the embedded broker after 0.3 s; a loaded machine needs more.
_START_S = 15.0
_STOP_S = 5.0

# Debian installs it where the path of ordinary users does not look.
_SBIN = "/usr/sbin:/usr/local/sbin"

_MOSQUITTO = """\
listener {port} {host}
allow_anonymous true
set_tcp_nodelay {nodelay}
max_packet_size {packet_cap_bytes}
max_inflight_messages 100
persistence false
log_dest stderr
log_type error
log_type warning
"""

# rumqttd's own defaults: every interface, MQTT 3.1.1 only, and messages over 20,480 bytes vanish.
_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5-1"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {packet_cap_bytes}
max_inflight_count = 100
dynamic_filters = true
"""


class Broker:
    """Broker on this machine, ended with its context; mosquitto where installed, else the embedded one.

    Nobody has to prove who they are, so it listens on loopback only, or where `insecure` says so.
    `nodelay=False` leaves mosquitto as it is by itself: TCP_NODELAY off, and no memory kept between messages.
    """

    def __init__(
        self,
        *,
        kind: BrokerKind | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        insecure: bool = False,
        nodelay: bool = True,
        packet_cap_bytes: int = PACKET_CAP_BYTES,
    ) -> None:
        self._asked_kind = kind
        self._host = host
        self._asked_port = port
        self._insecure = insecure
        self._nodelay = nodelay
        self._packet_cap_bytes = packet_cap_bytes
        self._kind: BrokerKind = kind if kind is not None else "mosquitto"
        self._port = 0 if port is None else port
        self._held: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @property
    def kind(self) -> BrokerKind:
        """Which broker runs."""
        return self._kind

    @property
    def port(self) -> int:
        """Where it listens; known once it was started, the same after a restart."""
        return self._port

    @property
    def address(self) -> BrokerAddress:
        """Where clients on this machine find it."""
        return BrokerAddress("127.0.0.1" if self._host == "0.0.0.0" else self._host, self._port)

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises: MissingProgram, ConfigError, BrokerError.
        """
        if self.is_running:
            return
        if not BrokerAddress(self._host).loopback and not self._insecure:
            raise ConfigError(
                f"a broker without passwords on {self._host} is refused",
                key="host",
                why="anybody on that network could read and send",
                fix="use 127.0.0.1, or a broker of your own with devices/broker/mosquitto.conf",
            )
        self._kind = self._asked_kind or installed_kind()
        if self._asked_port is None and self._held is None:
            self._held = _held_port(self._host)
            self._port = self._held.getsockname()[1]
        try:
            self._start_once()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in order, and remove what it wrote."""
        self._end(signal.SIGTERM)
        if self._held is not None:
            self._held.close()
            self._held = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def kill(self) -> None:
        """End it at once, as a crash would; `start` brings it back on the same port."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again; what it retained is lost."""
        self.kill()
        self.start()

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _start_once(self) -> None:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="edgeexit-broker-")
        directory = Path(self._directory.name)
        # mosquitto started by root gives its rights up, and must still be able to read this.
        directory.chmod(0o755)
        template, name = (
            (_MOSQUITTO, "mosquitto.conf") if self._kind == "mosquitto" else (_IOTCORE, "rumqttd.toml")
        )
        config = directory / name
        config.write_text(
            template.format(
                host=self._host,
                port=self._port,
                nodelay="true" if self._nodelay else "false",
                packet_cap_bytes=self._packet_cap_bytes,
            ),
            encoding="utf-8",
        )
        log = directory / "broker.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                _command(self._kind, config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env={**os.environ, **KEPT_MEMORY} if self._nodelay else None,
            )
        weakref.finalize(self, _terminate, self._process)
        until_s = time.monotonic() + _START_S
        while not _listens(self.address):
            if self._process.poll() is not None or time.monotonic() > until_s:
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise BrokerError(
                    lines[-1] if lines else f"{self._kind} ended without a word",
                    host=self._host,
                    port=self._port,
                    fix="give another port",
                )
            time.sleep(0.01)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        self._process = None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)


def installed_kind() -> BrokerKind:
    """The broker to use here. Raises: MissingProgram when there is none."""
    if _mosquitto() is not None:
        return "mosquitto"
    if find_spec("iotcore") is not None:
        return "iotcore"
    raise MissingProgram("mosquitto", package="mosquitto", needed_for="a broker on this machine")


def _mosquitto() -> str | None:
    path = os.environ.get("PATH", os.defpath)
    return shutil.which("mosquitto", path=f"{path}{os.pathsep}{_SBIN}")


def _command(kind: BrokerKind, config: Path) -> Sequence[str]:
    if kind == "iotcore":
        return (sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL")
    program = _mosquitto()
    if program is None:
        raise MissingProgram("mosquitto", package="mosquitto", needed_for="a broker on this machine")
    return (program, "-c", str(config))


def _held_port(host: str) -> socket.socket:
    """A free port, bound and never listened on: the kernel gives it to nobody else, a restart included.

    A broker may listen there all the same, because both say SO_REUSEADDR.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
    except OSError:
        holder.close()
        raise
    return holder


def _listens(address: BrokerAddress) -> bool:
    try:
        with socket.create_connection((address.host, address.port), timeout=0.5):
            return True
    except OSError:
        return False


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End a broker whose owner was forgotten or whose program ends."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
