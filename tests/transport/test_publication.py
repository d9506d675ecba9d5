"""PUBLISH packets: read back as packed; a damaged one is one typed error."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeexit.errors import WireError
from edgeexit.transport.publication import (
    Publication,
    pack_acknowledgement,
    pack_properties,
    parse_publish,
    publish_head,
    whole_acknowledgement,
    whole_publish,
)

_text = st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"]), max_size=300)


def _packet(message: Publication, identifier: int, properties: bytes) -> tuple[int, bytes]:
    topic = message.topic.encode()
    first = 0x30 | message.qos << 1 | message.retained
    middle = struct.pack(">H", identifier) if message.qos else b""
    return first, struct.pack(">H", len(topic)) + topic + middle + properties + message.payload


def _pack_publish(message: Publication, identifier: int = 0) -> bytes:
    head = publish_head(
        message.topic,
        len(message.payload),
        _pack(message),
        retain=message.retained,
        identifier=identifier if message.qos else 0,
    )
    return head + message.payload


def _pack(message: Publication) -> bytes:
    return pack_properties(
        response_topic=message.response_topic,
        correlation=message.correlation,
        content_type=message.content_type,
        expiry_s=message.expiry_s,
    )


publications = st.builds(
    Publication,
    topic=_text,
    payload=st.binary(max_size=200),
    qos=st.integers(0, 1),
    retained=st.booleans(),
    response_topic=st.none() | _text,
    correlation=st.none() | st.binary(max_size=100),
    content_type=st.none() | _text,
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
)


@given(publications, st.integers(1, 65535))
def test_a_message_is_read_back(message: Publication, identifier: int) -> None:
    first, packet = _packet(message, identifier, _pack(message))
    assert parse_publish(first, packet) == (message, identifier if message.qos else 0)
    assert parse_publish(first, bytearray(packet)) == (message, identifier if message.qos else 0)


@given(publications)
def test_the_client_library_reads_what_we_pack(message: Publication) -> None:
    packed = _pack(message)
    properties, length = Properties(PacketTypes.PUBLISH).unpack(packed)  # type: ignore[no-untyped-call]
    assert length == len(packed)
    assert getattr(properties, "ResponseTopic", None) == message.response_topic
    assert getattr(properties, "CorrelationData", None) == message.correlation
    assert getattr(properties, "ContentType", None) == message.content_type
    assert getattr(properties, "MessageExpiryInterval", None) == message.expiry_s


@given(publications, st.integers(1, 65535))
def test_a_packet_we_pack_is_read_back(message: Publication, identifier: int) -> None:
    if not message.topic or set("+#") & set(message.topic):
        with pytest.raises(WireError):
            _pack_publish(message, identifier)
        return
    packet = _pack_publish(message, identifier)
    length_bytes = next(index for index in range(1, 5) if packet[index] < 128)
    read = parse_publish(packet[0], packet[1 + length_bytes :])
    assert read == (message, identifier if message.qos else 0)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "x" * 65536, "\ud800"])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(WireError):
        publish_head(topic, 0, b"\0", retain=False)


def test_properties_of_others_are_passed_over() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1
    properties.TopicAlias = 3
    properties.SubscriptionIdentifier = 300
    properties.UserProperty = [("a", "b"), ("c", "d")]
    properties.CorrelationData = b"id"
    packed = properties.pack()  # type: ignore[no-untyped-call]
    message, _ = parse_publish(*_packet(Publication("t", b"x"), 0, packed))
    assert message == Publication("t", b"x", correlation=b"id")


@given(publications.filter(lambda message: message.qos == 0), st.binary(max_size=50), st.data())
def test_a_packet_is_taken_whole_or_not_at_all(
    message: Publication, behind: bytes, data: st.DataObject
) -> None:
    message = replace(message, topic="t")
    packet = _pack_publish(message)
    received = memoryview(packet + behind)
    body = whole_publish(received)
    assert body is not None
    assert body.stop == len(packet)
    assert parse_publish(received[0], received[body]) == (message, 0)
    cut = data.draw(st.integers(0, len(packet) - 1))
    assert whole_publish(received[:cut]) is None


@given(st.binary(max_size=100))
def test_no_bytes_are_taken_beyond_their_end(received: bytes) -> None:
    body = whole_publish(memoryview(received))
    if body is not None:
        assert received[0] >> 4 == 3
        assert 2 <= body.start <= body.stop <= len(received)


@given(st.integers(0, 65535), st.binary(max_size=50))
def test_an_acknowledgement_is_taken_whole_or_not_at_all(identifier: int, behind: bytes) -> None:
    packet = pack_acknowledgement(identifier)
    assert whole_acknowledgement(memoryview(packet + behind)) == (identifier, 0, len(packet))
    assert not any(whole_acknowledgement(memoryview(packet[:cut])) for cut in range(len(packet)))


def test_the_reason_of_an_acknowledgement_is_read() -> None:
    refused = bytes([0x40, 4, 0, 7, 0x87, 0])
    assert whole_acknowledgement(memoryview(refused + b"\x30")) == (7, 0x87, len(refused))
    assert whole_acknowledgement(memoryview(refused[:-1])) is None


@given(st.binary(max_size=200).map(lambda rest: b"\x40" + rest))
def test_no_acknowledgement_is_taken_beyond_its_end(received: bytes) -> None:
    taken = whole_acknowledgement(memoryview(received))
    assert taken is None or 4 <= taken[2] <= len(received)


@given(st.integers(0, 255), st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_wire_error(first: int, packet: bytes) -> None:
    try:
        parse_publish(first, packet)
    except WireError:
        return


@given(publications, st.data())
def test_a_damaged_packet_is_a_message_or_a_wire_error(message: Publication, data: st.DataObject) -> None:
    first, packet = _packet(message, 1, _pack(message))
    damaged = bytearray(packet)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        parse_publish(first, cut)
    except WireError:
        return


def test_qos_2_is_refused() -> None:
    with pytest.raises(WireError):
        parse_publish(0x34, b"\0\1t\0\1\0x")
