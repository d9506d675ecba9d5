"""Where a broker is, and how to prove who we are."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from edgeexit.errors import ConfigError

# Registered with IANA for MQTT and for MQTT over TLS.
PORT = 1883
TLS_PORT = 8883


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Host and port of a broker, and whether TLS is spoken there."""

    host: str
    port: int = PORT
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether it is this machine, by its literal address or as `localhost`."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are: a name with a password file, a client certificate, or both; None where not used.

    Secrets come from files, never from a command line or an address, where other users could read them.
    """

    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def password(self) -> str | None:
        """The first line of the password file. Raises: ConfigError when it cannot be read."""
        if self.password_file is None:
            return None
        try:
            lines = self.password_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "the password cannot be read",
                file=str(self.password_file),
                key="password_file",
                why=str(error),
                fix=f"make {self.password_file} readable to this user",
            ) from error
        return lines[0] if lines else ""


def parse_broker(text: str) -> BrokerAddress:
    """The address in `mqtt://host:port`, `mqtts://host` or plain `host:port`.

    Raises: ConfigError for anything else, a password in it included.
    """
    url = text if "://" in text else f"mqtt://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(text, str(error)) from error
    if parts.scheme not in ("mqtt", "mqtts"):
        raise _refused(text, f"{parts.scheme} is not mqtt or mqtts")
    if parts.username is not None or parts.password is not None:
        raise _refused(text, "an address shows up in process lists: give the password in a file")
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
        raise _refused(text, "a host, and a port if it is not the usual one")
    tls = parts.scheme == "mqtts"
    return BrokerAddress(host, port if port is not None else TLS_PORT if tls else PORT, tls)


def _refused(text: str, why: str) -> ConfigError:
    shown = text if "@" not in text else "address with a password"
    return ConfigError(
        f"{shown!r} is not a broker", key="broker", why=why, fix="write mqtt://host:1883 or mqtts://host:8883"
    )
