"""MQTT 5 PUBLISH, sans I/O: the properties that edgeexit uses, packed and parsed.

The client library keeps properties in general-purpose objects: 45 µs to make and as much to read, and
one copy of the whole payload for each property read. At 150 kB that is more than the network costs.
Source: MQTT 5.0, OASIS standard, sections 2.2.2 and 3.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgeexit.errors import WireError

# Of packets: types in the first byte, and QoS 1 in that of a PUBLISH.
_PUBLISH, _QOS_1, _PUBACK = 0x30, 0x02, 0x40

_EXPIRY = 2
_CONTENT_TYPE = 3
_RESPONSE_TOPIC = 8
_CORRELATION = 9

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")

# Sizes of the properties of fixed length; 35 is a topic alias, which is never offered.
_FIXED_BYTES = {1: 1, _EXPIRY: 4, 35: 2}
_SUBSCRIPTION_ID = 11
_USER_PROPERTY = 38


@dataclass(frozen=True, slots=True)
class Publication:
    """One message as it came.

    `retained` tells a copy that the broker kept from one that was published just now.
    Units: expiry_s, what is left of its life.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None


def pack_properties(
    *,
    response_topic: str | None = None,
    correlation: bytes | None = None,
    content_type: str | None = None,
    expiry_s: int | None = None,
) -> bytes:
    """The property section of a PUBLISH, its length included."""
    parts = []
    if expiry_s is not None:
        parts.append(b"\x02" + _U32.pack(min(expiry_s, 2**32 - 1)))
    if content_type is not None:
        parts.append(b"\x03" + _sized(content_type.encode()))
    if response_topic is not None:
        parts.append(b"\x08" + _sized(response_topic.encode()))
    if correlation is not None:
        parts.append(b"\x09" + _sized(correlation))
    body = b"".join(parts)
    return _variable(len(body)) + body


def publish_head(
    topic: str, payload_bytes: int, packed: bytes, *, retain: bool, identifier: int = 0
) -> bytes:
    """All of a PUBLISH packet that comes before a payload of this size; with an identifier it has QoS 1.

    Raises: WireError when the topic cannot be published on.
    """
    name = require_topic(topic)
    number = _U16.pack(identifier) if identifier else b""
    first_byte = _PUBLISH | (_QOS_1 if identifier else 0) | retain
    length = _variable(2 + len(name) + len(number) + len(packed) + payload_bytes)
    return b"".join((bytes((first_byte,)), length, _U16.pack(len(name)), name, number, packed))


def pack_acknowledgement(identifier: int) -> bytes:
    """A PUBACK: the message of this identifier was taken."""
    return b"\x40\x02" + _U16.pack(identifier)


def whole_acknowledgement(received: memoryview) -> tuple[int, int, int] | None:
    """Identifier, reason and size of a PUBACK that begins these bytes; None for another packet or a part."""
    if len(received) < 4 or received[0] != _PUBACK:
        return None
    end = 2 + received[1]
    if not 4 <= end <= min(len(received), 129):
        return None
    return received[2] << 8 | received[3], received[4] if end > 4 else 0, end


def require_topic(topic: str) -> bytes:
    """The topic as it travels. Raises: WireError when it cannot be published on."""
    try:
        name = topic.encode()
    except UnicodeEncodeError as error:
        raise WireError(f"topic {topic!r} is not text") from error
    if not 0 < len(name) < 65536 or "+" in topic or "#" in topic or "\0" in topic:
        raise WireError(f"topic {topic[:80]!r} cannot be published on")
    return name


def whole_publish(received: memoryview) -> slice | None:
    """Where the body of a PUBLISH lies that begins these bytes; None for another packet or a part of one."""
    if len(received) < 2 or received[0] & 0xF0 != _PUBLISH:
        return None
    try:
        length, start = _take_variable(received, 1)
    except (IndexError, WireError):
        return None
    return slice(start, start + length) if start + length <= len(received) else None


def parse_publish(first_byte: int, packet: bytes | bytearray | memoryview) -> tuple[Publication, int]:
    """The message in a PUBLISH packet, and its packet identifier (0 at QoS 0); one copy of the payload.

    Raises: WireError when it is not one.
    """
    qos = (first_byte >> 1) & 3
    if qos > 1:
        raise WireError("QoS 2 was never asked for")
    try:
        topic, offset = _take(packet, 0)
        identifier = 0
        if qos:
            identifier = packet[offset] << 8 | packet[offset + 1]
            offset += 2
        length, offset = _take_variable(packet, offset)
        end = offset + length
        if end > len(packet):
            raise WireError("properties run past the end")
        response_topic = correlation = content_type = expiry_s = None
        # Slices of bytes are bytes again, those of a view are not.
        section, offset = bytes(packet[offset:end]), 0
        while offset < length:
            kind = section[offset]
            offset += 1
            if kind == _CORRELATION:
                correlation, offset = _take(section, offset)
            elif kind == _RESPONSE_TOPIC:
                value, offset = _take(section, offset)
                response_topic = value.decode()
            elif kind == _CONTENT_TYPE:
                value, offset = _take(section, offset)
                content_type = value.decode()
            elif kind == _EXPIRY:
                expiry_s = _U32.unpack_from(section, offset)[0]
                offset += 4
            else:
                offset = _skip(section, offset, kind)
        if offset != length:
            raise WireError("a property runs past its section")
        message = Publication(
            topic.decode(),
            bytes(memoryview(packet)[end:]),
            qos,
            bool(first_byte & 1),
            response_topic,
            correlation,
            content_type,
            expiry_s,
        )
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"not a PUBLISH packet: {error}") from error
    return message, identifier


def _skip(packet: bytes | bytearray | memoryview, offset: int, kind: int) -> int:
    if kind in _FIXED_BYTES:
        return offset + _FIXED_BYTES[kind]
    if kind == _SUBSCRIPTION_ID:
        return _take_variable(packet, offset)[1]
    if kind == _USER_PROPERTY:
        _, offset = _take(packet, offset)
        return _take(packet, offset)[1]
    raise WireError(f"property {kind} does not belong in a PUBLISH")


def _take(packet: bytes | bytearray | memoryview, offset: int) -> tuple[bytes, int]:
    end = offset + 2 + (packet[offset] << 8 | packet[offset + 1])
    if end > len(packet):
        raise WireError("a string runs past the end")
    return bytes(packet[offset + 2 : end]), end


def _take_variable(packet: bytes | bytearray | memoryview, offset: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14, 21):
        byte = packet[offset]
        offset += 1
        value |= (byte & 127) << shift
        if not byte & 128:
            return value, offset
    raise WireError("a length of more than four bytes")


def _sized(value: bytes) -> bytes:
    return _U16.pack(len(value)) + value


def _variable(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)
