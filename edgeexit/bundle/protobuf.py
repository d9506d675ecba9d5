"""A protocol buffer walked by hand: every length is held against the file, and nothing is copied.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeexit.bundle.flatbuffer import Malformed

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
# Ten groups of seven bits hold 64; more would be a number that goes on for ever.
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, its kind, and its value, or where its bytes lie."""

    number: int
    wire: int
    value: int
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A part of a file that is one message."""

    data: memoryview
    start: int
    stop: int

    def fields(self) -> Iterator[Field]:
        """Its fields, in their order. Raises: Malformed."""
        at = self.start
        while at < self.stop:
            key, at = _varint(self.data, at, self.stop)
            number, wire = key >> 3, key & 7
            if number == 0:
                raise Malformed("a field has the number 0")
            if wire == VARINT:
                value, at = _varint(self.data, at, self.stop)
                yield Field(number, wire, value)
                continue
            if wire == LENGTH:
                size, at = _varint(self.data, at, self.stop)
            elif wire in (FIXED64, FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise Malformed("a field is of an unknown kind")
            if size > self.stop - at:
                raise Malformed("a field leaves its message")
            yield Field(number, wire, 0, at, at + size)
            at += size

    def inner(self, field: Field) -> Message:
        """The message that a field holds. Raises: Malformed when it holds none."""
        if field.wire != LENGTH:
            raise Malformed("a message is wanted where a number is")
        return Message(self.data, field.start, field.stop)

    def text(self, field: Field, *, most: int) -> str:
        """The text that a field holds. Raises: Malformed when it holds none, or too much of it."""
        if field.wire != LENGTH or field.stop - field.start > most:
            raise Malformed(f"a text of at most {most} bytes is wanted")
        return bytes(self.data[field.start : field.stop]).decode("utf-8", "replace")

    def numbers(self, field: Field, *, most: int, what: str) -> list[int]:
        """The whole numbers of a field that may come packed, as signed ones of 64 bits. Raises: Malformed."""
        if field.wire == VARINT:
            return [_signed(field.value)]
        if field.wire != LENGTH:
            raise Malformed(f"{what} are no whole numbers")
        found: list[int] = []
        at = field.start
        while at < field.stop:
            value, at = _varint(self.data, at, field.stop)
            found.append(_signed(value))
            if len(found) > most:
                raise Malformed(f"it has more {what} than the {most} that are expected")
        return found


def whole(data: memoryview) -> Message:
    """A file that is one message."""
    return Message(data, 0, len(data))


def _varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for group in range(_LONGEST_VARINT):
        if at >= stop:
            raise Malformed("a number leaves its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * group)
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise Malformed("a number is longer than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
