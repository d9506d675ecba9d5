"""A flatbuffer walked by hand: every offset is held against the file, and nothing is copied.

Source: https://flatbuffers.dev/internals/. A table begins with the signed distance back to its vtable, which
begins with its own size and the table's, and then has one distance from the table for every field.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")


class Malformed(Exception):
    """Something does not lie within the file; the message says what."""


@dataclass(frozen=True, slots=True)
class Vector:
    """Items in a row. Units: `start`, bytes from the file's begin; `count`, items."""

    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Table:
    """One table; fields are named by the place of their entry in the vtable: 4, 6, 8, …

    Raises: Malformed from every method where the field leaves the file.
    """

    data: memoryview
    start: int

    def scalar(self, field: int, layout: struct.Struct, default: int) -> int:
        """A number, or its default where the table has none."""
        place = self._place(field)
        return default if place is None else number(self.data, place, layout)

    def table(self, field: int) -> Table | None:
        """A table within this one."""
        place = self._place(field)
        return None if place is None else _table(self.data, _follow(self.data, place))

    def vector(self, field: int, item_bytes: int, *, most: int, what: str) -> Vector:
        """A vector of at most `most` items; an empty one where the table has none."""
        place = self._place(field)
        if place is None:
            return Vector(0, 0)
        start = _follow(self.data, place)
        count = number(self.data, start, _U32)
        if count > most:
            raise Malformed(f"it has {count} {what}, at most {most} are expected")
        if start + 4 + count * item_bytes > len(self.data):
            raise Malformed(f"its {what} leave the file")
        return Vector(start + 4, count)

    def tables(self, field: int, *, most: int, what: str) -> list[Table]:
        """A vector of tables."""
        found = self.vector(field, 4, most=most, what=what)
        places = range(found.start, found.start + 4 * found.count, 4)
        return [_table(self.data, _follow(self.data, place)) for place in places]

    def fields(self) -> list[int]:
        """The fields that it has, rising."""
        vtable = self.start - number(self.data, self.start, _I32)
        end = number(self.data, vtable, _U16)
        return [field for field in range(4, end - 1, 2) if self._place(field) is not None]

    def reference(self, field: int) -> int | None:
        """Where that begins which a field refers to; None where the table has no such field."""
        place = self._place(field)
        return None if place is None else _within(self.data, _follow(self.data, place))

    def _place(self, field: int) -> int | None:
        """Where a field lies; None where the table has none."""
        vtable = self.start - number(self.data, self.start, _I32)
        if number(self.data, vtable, _U16) < field + 2:
            return None
        distance = number(self.data, vtable + field, _U16)
        return None if distance == 0 else self.start + distance


def root(data: memoryview) -> Table:
    """The table that a file begins with. Raises: Malformed."""
    return _table(data, _follow(data, 0))


def number(data: memoryview, place: int, layout: struct.Struct) -> int:
    """One number. Raises: Malformed where it does not lie within the file."""
    if not 0 <= place <= len(data) - layout.size:
        raise Malformed("an offset leaves the file")
    (value,) = layout.unpack_from(data, place)
    return int(value)


def _follow(data: memoryview, place: int) -> int:
    return place + number(data, place, _U32)


def _table(data: memoryview, start: int) -> Table:
    return Table(data, _within(data, start))


def _within(data: memoryview, start: int) -> int:
    number(data, start, _I32)
    return start
