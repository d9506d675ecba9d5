"""What is asked of a TCP socket so that small messages do not wait."""

from __future__ import annotations

import socket
from fcntl import ioctl

# Linux: bytes handed to the kernel that the other side has not acknowledged. Source: tcp(7), SIOCOUTQ.
_SIOCOUTQ = 0x5411

# Linux only.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def send_at_once(sock: socket.socket) -> None:
    """Turn Nagle's algorithm off: with delayed acknowledgements it costs 40 ms an exchange."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(sock: socket.socket) -> None:
    """Acknowledge what came without delay, where the kernel can.

    The kernel forgets this, so it is asked for after every read. It ends the stall of a peer that has
    Nagle's algorithm on.
    """
    if _QUICKACK is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
    except OSError:
        return


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Bytes written that the peer has not acknowledged; 0 where the kernel does not tell."""
    try:
        return int.from_bytes(ioctl(sock, _SIOCOUTQ, bytes(4)), "little")
    except (OSError, ValueError):
        return 0
