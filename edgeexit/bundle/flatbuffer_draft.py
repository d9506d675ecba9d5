"""New tables of a flatbuffer, written in front of others that stay as they are.

Source: https://flatbuffers.dev/internals/. References count forward: what refers lies before what it refers
to, new tables before the files that they speak of.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeexit.bundle.flatbuffer import Malformed, Table

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
# The largest scalar has eight bytes; files behind the new tables begin where their own alignment, the
# largest that runtimes ask for, still holds.
_TABLE_ALIGNMENT = 8
FILE_ALIGNMENT = 64
# References are unsigned, but some readers take them for signed.
MOST_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number in a table."""

    layout: struct.Struct
    value: int


@dataclass(frozen=True, slots=True)
class Position:
    """A number of eight bytes in a table: where something that stays in its file lies in all."""

    file: int
    place: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that stays in its file. Units: place, bytes from the begin of file number `file`."""

    file: int
    place: int


@dataclass(frozen=True, slots=True)
class NewText:
    """A string."""

    text: str


@dataclass(frozen=True, slots=True)
class NewVector:
    """References in a row."""

    items: Sequence[Node]


@dataclass(frozen=True, slots=True)
class NewTable:
    """A table; fields are named by the place of their entry in the vtable: 4, 6, 8, …"""

    fields: Mapping[int, Field]


Node = Kept | NewText | NewVector | NewTable
Field = Scalar | Position | Node

Layout = Mapping[int, struct.Struct | None]
"""Fields that a kind of table has: their numbers' layout, None for a reference."""


def told_again(table: Table, file: int, layout: Layout, *, without: int | None = None) -> dict[int, Field]:
    """The fields of a table for a new one, all but `without`; what they refer to stays where it is.

    Raises: Malformed where the table has a field that the layout does not name.
    """
    found: dict[int, Field] = {}
    for field in table.fields():
        if field == without:
            continue
        if field not in layout:
            raise Malformed(f"a table has a field {field} that is not known here")
        numbers = layout[field]
        if numbers is None:
            place = table.reference(field)
            if place is not None:
                found[field] = Kept(file, place)
        else:
            found[field] = Scalar(numbers, table.scalar(field, numbers, 0))
    return found


def written(root: NewTable, identifier: bytes, sizes: Sequence[int]) -> tuple[bytes, tuple[int, ...]]:
    """The new tables as bytes, and where behind them each file has to begin.

    Shapes: sizes and the places of files (n,), in bytes from the begin.
    Raises: Malformed when all together is larger than a flatbuffer may be.
    """
    data = bytearray(4) + identifier
    places: dict[int, int] = {}
    references: list[tuple[int, Node | Position]] = [(0, root)]
    waiting: deque[Node] = deque([root])
    vtables: dict[bytes, int] = {}
    while waiting:
        node = waiting.popleft()
        if isinstance(node, Kept) or id(node) in places:
            continue
        if isinstance(node, NewText):
            _align(data, 4)
            places[id(node)] = len(data)
            text = node.text.encode()
            data += _U32.pack(len(text)) + text + b"\0"
            continue
        if isinstance(node, NewVector):
            _align(data, 4)
            places[id(node)] = len(data)
            data += _U32.pack(len(node.items))
            refers: list[tuple[int, Node | Position]]
            refers = [(len(data) + 4 * index, item) for index, item in enumerate(node.items)]
            data += bytes(4 * len(node.items))
        else:
            place, refers = _table(data, node, vtables)
            places[id(node)] = place
        references += refers
        waiting.extend(item for _, item in refers if not isinstance(item, Position))
    begins = _begins(len(data), sizes)
    for place, item in references:
        if isinstance(item, Position):
            _U64.pack_into(data, place, begins[item.file] + item.place)
        else:
            target = begins[item.file] + item.place if isinstance(item, Kept) else places[id(item)]
            _U32.pack_into(data, place, target - place)
    return bytes(data), begins


def _table(
    data: bytearray, node: NewTable, vtables: dict[bytes, int]
) -> tuple[int, list[tuple[int, Node | Position]]]:
    """Write a table, and its vtable where none is like it; its place, and what it refers to from where."""
    offsets: dict[int, int] = {}
    size = 4  # the distance to the vtable
    for field_size, field in sorted(
        ((_size(each), field) for field, each in node.fields.items()), reverse=True
    ):
        size += -size % field_size
        offsets[field] = size
        size += field_size
    last = max(offsets, default=2)
    entries = [4 + last - 2, size, *(offsets.get(field, 0) for field in range(4, last + 2, 2))]
    vtable = b"".join(_U16.pack(entry) for entry in entries)
    if vtable not in vtables:
        _align(data, 2)
        vtables[vtable] = len(data)
        data += vtable
    _align(data, _TABLE_ALIGNMENT)
    place = len(data)
    data += bytes(size)
    _I32.pack_into(data, place, place - vtables[vtable])
    refers: list[tuple[int, Node | Position]] = []
    for field, each in node.fields.items():
        if isinstance(each, Scalar):
            each.layout.pack_into(data, place + offsets[field], each.value)
        else:
            refers.append((place + offsets[field], each))
    return place, refers


def _size(field: Field) -> int:
    if isinstance(field, Scalar):
        return field.layout.size
    return _U64.size if isinstance(field, Position) else _U32.size


def _begins(size: int, sizes: Sequence[int]) -> tuple[int, ...]:
    found = []
    for each in sizes:
        size += -size % FILE_ALIGNMENT
        found.append(size)
        size += each
    if size > MOST_BYTES:
        raise Malformed(f"together they have {size} bytes, at most {MOST_BYTES} are possible")
    return tuple(found)


def _align(data: bytearray, to: int) -> None:
    data += bytes(-len(data) % to)
