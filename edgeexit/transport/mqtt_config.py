"""What an MQTT connection needs to know."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from edgeexit.errors import ConfigError
from edgeexit.transport.address import BrokerAddress, Credentials
from edgeexit.transport.wire import FRAME_CAP_BYTES

# Topic and properties of our longest PUBLISH take under 400 bytes; the broker's limit counts them too.
ENVELOPE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained at QoS 1, when this connection is lost."""

    topic: str
    payload: bytes
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic filter and the highest QoS wanted for it, 0 or 1."""

    topic_filter: str
    qos: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """What a connection needs to know.

    `session_expiry_s` above 0 keeps the broker's session, and a delayed will, over reconnects.
    `quick_acknowledge` (Linux) makes a broker without TCP_NODELAY as fast as one with it.
    Units: payload_cap_bytes, largest payload ever sent; backlog_cap_bytes, most that may wait to be
    sent; backoff_s, bounds of the random wait between attempts; goodbye_s, most that a close waits for
    what is queued.
    """

    address: BrokerAddress
    client_id: str
    credentials: Credentials = field(default_factory=Credentials)
    will: Will | None = None
    subscriptions: tuple[Subscription, ...] = ()
    # A half-open TCP connection is noticed after 1.5 times this.
    keepalive_s: int = 15
    session_expiry_s: int = 0
    connect_timeout_s: float = 5.0
    backoff_s: tuple[float, float] = (0.5, 30.0)
    payload_cap_bytes: int = FRAME_CAP_BYTES
    backlog_cap_bytes: int = 4 * FRAME_CAP_BYTES
    # QoS 1 messages without acknowledgement; control messages are few, so this is a stalled broker.
    unacknowledged_cap: int = 100
    quick_acknowledge: bool = True
    # A goodbye (last status, DISCONNECT) is a few hundred bytes; a link that does not take them in this
    # time is as good as gone, and the broker publishes the will.
    goodbye_s: float = 1.0


def tls_context(config: ConnectionConfig) -> ssl.SSLContext | None:
    """How to speak TLS; None for a plain connection. Raises: ConfigError."""
    if not config.address.tls:
        return None
    credentials = config.credentials
    try:
        context = ssl.create_default_context(
            cafile=None if credentials.ca_file is None else str(credentials.ca_file)
        )
        if credentials.certificate_file is not None:
            context.load_cert_chain(credentials.certificate_file, credentials.key_file)
    except OSError as error:
        raise ConfigError(
            "the certificates cannot be read",
            file=str(credentials.ca_file or credentials.certificate_file),
            key="ca_file",
            why=str(error),
            fix="give PEM files that this user can read",
        ) from error
    return context
