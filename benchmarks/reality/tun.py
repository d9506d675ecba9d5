"""TUN devices: network interfaces whose packets a program reads and writes. Linux only."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from edgeexit.errors import DeviceError

NODE = "/dev/net/tun"
# From linux/if_tun.h: the request that names an interface, its kind, and "no header before packets".
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
# Names of interfaces have at most 15 letters.
NAME_CAP = 15
# The largest packet that an interface of the usual MTU gives is far smaller.
READ_BYTES = 65_535


def open_tun(name: str) -> int:
    """A new TUN interface, gone when the descriptor is closed; reads never wait.

    Raises: DeviceError where the kernel or this user may not.
    """
    if len(name) > NAME_CAP:
        raise DeviceError(f"interface {name!r} is refused", why=f"names have at most {NAME_CAP} letters")
    try:
        descriptor = os.open(NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(
            f"{NODE} cannot be opened",
            why=error.strerror,
            fix="load the kernel module (modprobe tun), or let the container have this device",
        ) from error
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError as error:
        os.close(descriptor)
        raise DeviceError(
            f"interface {name} cannot be made", why=error.strerror, fix="run this as root"
        ) from error
    return descriptor


def read_packet(descriptor: int) -> bytes | None:
    """The next packet that waits; None without one, or while the interface is down."""
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError as error:
        # EIO: the interface is down, or has just moved to another namespace.
        if error.errno in (errno.EAGAIN, errno.EIO, errno.EINTR):
            return None
        raise


def write_packet(descriptor: int, packet: bytes) -> bool:
    """Give a packet to the interface; False where it takes none now."""
    try:
        return os.write(descriptor, packet) == len(packet)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EIO, errno.EINVAL, errno.ENOBUFS):
            return False
        raise
