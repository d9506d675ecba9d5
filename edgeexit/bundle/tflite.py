"""What a TFLite file must be before an interpreter is made of it: whole, closed in itself, and numbers.

Source: tensorflow/lite/schema/schema.fbs, for the places of fields and the numbers of types and operators.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from edgeexit.bundle.flatbuffer import Malformed, Table, Vector, number, root
from edgeexit.bundle.mapped import examine_file
from edgeexit.bundle.nan import Floating, holds_nan
from edgeexit.errors import UnsafeModel

# Caps. A whole ViT-Base is one graph of 2,500 tensors; no stage of anything published comes near these.
MOST_GRAPHS = 64
MOST_TENSORS = 65_536
MOST_OPERATORS = 65_536
MOST_OPERATOR_KINDS = 1024
MOST_DIMS = 8
MOST_ELEMENTS = 2**26  # of one tensor, as in a manifest
MOST_ACTIVATIONS = 2**30  # of all tensors that a graph computes; a whole ViT-Base at 224² has 7e7
_MOST_BYTES = 2**31

IDENTIFIER = b"TFL3"
_I8, _U8, _I32, _U32, _U64 = (struct.Struct(f"<{code}") for code in "bBiIQ")

# Operators whose meaning lies outside the file: whatever this machine registered under a name.
_CUSTOM, _DELEGATE, _FOREIGN_CALL = 32, 51, 173
_FOREIGN = {_CUSTOM: "a custom operator", _DELEGATE: "a delegate", _FOREIGN_CALL: "a foreign function"}

# Bits of one element, by TensorType: f32 f16 i32 u8 i64 bool i16 c64 i8 f64 c128 u64 u32 u16 i4 bf16 i2 u4
# and two floats of 8 bits. Types with another layout (strings, resources) are not here.
_TYPES = (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19, 20, 21, 22)
_WIDTHS = (32, 16, 32, 8, 64, 8, 16, 64, 8, 64, 128, 64, 32, 16, 4, 16, 2, 4, 8, 8)
_BITS = dict(zip(_TYPES, _WIDTHS, strict=True))
_FLOATS: dict[int, Floating] = {0: "f32", 1: "f16", 10: "f64", 18: "bf16"}


def check_model(path: Path, *, file: str) -> None:
    """Examine a TFLite file in place, in little memory.

    Refused: what is no TFLite file or leaves itself; operators and weights from outside it; shapes beyond
    all use; constants that do not fill their shape; weights or scales that are no numbers. Infinities pass:
    masks and maxima are made with them.
    Raises: UnsafeModel, BundleError when it cannot be read.
    """
    examine_file(path, _examine, file=file)


def check_model_bytes(data: bytes, *, file: str) -> None:
    """The same for a file that is in memory. Raises: UnsafeModel."""
    _examine(memoryview(data), file)


def _examine(data: memoryview, file: str) -> None:
    why = None
    try:
        _Model(data).check()
    except Malformed as error:
        why = str(error)
    except _Foreign as error:
        raise UnsafeModel(
            file=file, why=str(error), fix="convert the network with built-in operators"
        ) from None
    if why is not None:
        # Raised here, where no frame of the walk holds on to the mapped file any more.
        raise UnsafeModel(file=file, why=why)


class _Foreign(Exception):
    """The model reaches outside its file."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What is asked of a tensor."""

    kind: int
    elements: int
    buffer: int
    is_dense: bool


class _Model:
    """One file under examination."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        # Honest constants do not overlap: every byte needs to be looked at no more than once.
        self._left_bytes = len(data)

    def check(self) -> None:
        data = self._data
        if bytes(data[4:8]) != IDENTIFIER:
            raise Malformed("it is no TFLite file")
        model = root(data)
        kinds = self._operator_kinds(model)
        buffers = self._buffers(model)
        for field in (20, 22):
            if model.vector(field, 4, most=MOST_TENSORS, what="external buffers").count:
                raise _Foreign("it keeps weights in files outside the bundle")
        graphs = model.tables(8, most=MOST_GRAPHS, what="graphs")
        if not graphs:
            raise Malformed("it has no graph")
        tensors = operators = 0
        looked_at: set[tuple[int, int]] = set()
        for graph in graphs:
            tables = graph.tables(4, most=MOST_TENSORS - tensors, what="tensors")
            tensors += len(tables)
            self._tensors(tables, buffers, looked_at)
            steps = graph.tables(10, most=MOST_OPERATORS - operators, what="operators")
            operators += len(steps)
            for step in steps:
                if step.scalar(4, _U32, 0) >= kinds:
                    raise Malformed("an operator is of a kind that the file does not name")

    def _operator_kinds(self, model: Table) -> int:
        """How many kinds of operators there are, none of them foreign."""
        kinds = model.tables(6, most=MOST_OPERATOR_KINDS, what="kinds of operators")
        for kind in kinds:
            # Old readers know 127 operators and read the first field, new ones take the larger of both.
            code = max(kind.scalar(4, _I8, 0), kind.scalar(10, _I32, 0))
            name = self._text(kind.vector(6, 1, most=_MOST_BYTES, what="letters of a name"))
            if code in _FOREIGN or name:
                what = _FOREIGN.get(code, "a custom operator")
                raise _Foreign(f"it calls {what} ({name or 'without a name'}), which is no part of TFLite")
        return len(kinds)

    def _buffers(self, model: Table) -> list[Vector]:
        """Where the constants lie, in the flatbuffer or behind it."""
        found = []
        for table in model.tables(12, most=MOST_TENSORS, what="buffers"):
            held = table.vector(4, 1, most=_MOST_BYTES, what="bytes in a buffer")
            offset, size = table.scalar(6, _U64, 0), table.scalar(8, _U64, 0)
            if offset > 1:  # 0 and 1 stand for none
                if offset + size > len(self._data):
                    raise Malformed("a buffer leaves the file")
                held = Vector(offset, size)
            found.append(held)
        return found

    def _tensors(self, tables: list[Table], buffers: list[Vector], looked_at: set[tuple[int, int]]) -> None:
        computed = 0
        for table in tables:
            tensor = self._tensor(table)
            if tensor.buffer >= len(buffers):
                raise Malformed("a tensor has a buffer that is not there")
            self._scales(table)
            constant = buffers[tensor.buffer]
            if not constant.count:
                computed += tensor.elements
                continue
            self._filled(tensor, constant)
            key = (tensor.buffer, tensor.kind)
            if key not in looked_at:
                looked_at.add(key)
                self._numbers(constant, tensor.kind)
        if computed > MOST_ACTIVATIONS:
            raise Malformed(f"a graph computes {computed} numbers, at most {MOST_ACTIVATIONS} are expected")

    def _tensor(self, table: Table) -> _Tensor:
        shape = table.vector(4, 4, most=MOST_DIMS, what="dimensions of a tensor")
        sizes = [number(self._data, shape.start + 4 * i, _I32) for i in range(shape.count)]
        if any(size < 0 for size in sizes):
            raise Malformed(f"a tensor has the shape {sizes}")
        elements = prod(sizes)
        if elements > MOST_ELEMENTS:
            raise Malformed(f"a tensor has the shape {sizes}, at most {MOST_ELEMENTS} elements are expected")
        if table.scalar(24, _U32, 0):
            raise _Foreign("it keeps a tensor in a file outside the bundle")
        return _Tensor(
            kind=table.scalar(6, _I8, 0),
            elements=elements,
            buffer=table.scalar(8, _U32, 0),
            is_dense=table.table(16) is None,
        )

    def _filled(self, tensor: _Tensor, constant: Vector) -> None:
        """Refuse a constant that is smaller or larger than its shape: it would be read beyond its end."""
        bits = _BITS.get(tensor.kind)
        if bits is None or not tensor.is_dense:
            return
        wanted = (tensor.elements * bits + 7) // 8
        if constant.count != wanted:
            raise Malformed(f"a constant has {constant.count} bytes where its shape takes {wanted}")

    def _scales(self, table: Table) -> None:
        quantization = table.table(12)
        if quantization is not None:
            self._numbers(quantization.vector(8, 4, most=_MOST_BYTES // 4, what="scales"), 0, item_bytes=4)

    def _numbers(self, held: Vector, kind: int, *, item_bytes: int = 1) -> None:
        """Refuse what is no number, a chunk at a time."""
        size_bytes = held.count * item_bytes
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise Malformed("its constants lie over each other")
        if holds_nan(self._data, held.start, size_bytes, _FLOATS.get(kind)):
            raise Malformed("it holds weights or scales that are no numbers (NaN)")

    def _text(self, held: Vector) -> str:
        """The begin of a name, for messages."""
        return bytes(self._data[held.start : held.start + min(held.count, 64)]).decode("ascii", "replace")
