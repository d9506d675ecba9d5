"""Several TFLite files as one with a signature for each: their bytes as they are, behind new tables.

One interpreter of the one file takes its memory for all graphs together; several of them take it each, and
every stage then meets caches full of another's.
Source: tensorflow/lite/schema/schema.fbs, for the places of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeexit.bundle.flatbuffer import Malformed, Table, root
from edgeexit.bundle.flatbuffer_draft import (
    MOST_BYTES,
    Field,
    Kept,
    Layout,
    NewTable,
    NewText,
    NewVector,
    Node,
    Position,
    Scalar,
    told_again,
    written,
)
from edgeexit.bundle.tflite import IDENTIFIER, MOST_OPERATOR_KINDS, MOST_OPERATORS, MOST_TENSORS
from edgeexit.errors import UnsafeModel

_I8, _U8, _I32, _U32, _U64 = (struct.Struct(f"<{code}") for code in "bBiIQ")
_VERSION = 3

_TENSOR: Layout = {
    4: None,  # shape
    6: _I8,
    8: _U32,  # buffer
    10: None,  # name
    12: None,  # quantization
    14: _U8,
    16: None,  # sparsity
    18: None,  # shape signature
    20: _U8,
    22: None,  # tensors of a variant
}
_OPERATOR: Layout = {
    4: _U32,  # kind of operator
    6: None,  # inputs
    8: None,  # outputs
    10: _U8,
    12: None,  # options
    14: None,  # options of a custom operator
    16: _I8,
    18: None,  # variables that it changes
    20: None,  # intermediates
    26: _U8,
    28: None,  # options of newer operators
}
_GRAPH: Layout = {4: None, 6: None, 8: None, 10: None, 12: None}  # tensors, inputs, outputs, operators, name
# Places in a log of the converter, which is not taken along.
_OPERATOR_LOG, _GRAPH_LOG = 30, 14
_SIGNATURE: Layout = {4: None, 6: None, 8: None, 12: _U32}  # inputs, outputs, key, graph


@dataclass(frozen=True, slots=True)
class Merged:
    """One file: `head`, then every file where it has to begin. Units: begins and size_bytes, bytes."""

    head: bytes
    begins: tuple[int, ...]
    size_bytes: int

    def pieces(self, files: Sequence[memoryview]) -> Iterator[memoryview]:
        """The whole file, in order; `files` are those that it was made of."""
        yield memoryview(self.head)
        end = len(self.head)
        for begin, file in zip(self.begins, files, strict=True):
            yield memoryview(bytes(begin - end))
            yield file
            end = begin + len(file)


def merged(files: Sequence[memoryview], keys: Sequence[str]) -> Merged:
    """One TFLite file of several, with graph i of file i under the signature `keys[i]`.

    Nothing of the files is changed or copied; numbers of buffers and kinds of operators, which count
    within a file, are told anew. What their converter noted beside the graphs is left out.
    Raises: UnsafeModel where a file cannot be one of several: it has more than one graph or signature,
    a first buffer that is not empty, or a field that is not known here.
    """
    try:
        model = _model(files, keys)
        head, begins = written(model, IDENTIFIER, [len(file) for file in files])
    except Malformed as error:
        why = str(error)
    else:
        return Merged(head, begins, begins[-1] + len(files[-1]))
    # Raised here, where no frame of the walk holds on to mapped files any more.
    raise UnsafeModel(file="model", why=why, fix="the stages are run from files of their own")


def _model(files: Sequence[memoryview], keys: Sequence[str]) -> NewTable:
    kinds: list[Node] = []
    buffers: list[Node] = []
    graphs: list[Node] = []
    signatures: list[Node] = []
    for file, (data, key) in enumerate(zip(files, keys, strict=True)):
        model = root(data)
        own_graphs = model.tables(8, most=1, what="graphs")
        own_signatures = model.tables(18, most=1, what="signatures")
        if bytes(data[4:8]) != IDENTIFIER or not own_graphs or not own_signatures:
            raise Malformed("it is no TFLite file with a graph and a signature")
        graphs.append(_graph(own_graphs[0], file, len(kinds), len(buffers)))
        signatures.append(_signature(own_signatures[0], file, key))
        own_kinds = model.tables(6, most=MOST_OPERATOR_KINDS, what="kinds of operators")
        kinds += [Kept(file, kind.start) for kind in own_kinds]
        own_buffers = model.tables(12, most=MOST_TENSORS, what="buffers")
        if not own_buffers or _holds_something(own_buffers[0]):
            raise Malformed("its first buffer, which stands for none, holds something")
        buffers += [_buffer(buffer, file) for buffer in own_buffers]
    return NewTable(
        {
            4: Scalar(_U32, _VERSION),
            6: NewVector(kinds),
            8: NewVector(graphs),
            12: NewVector(buffers),
            18: NewVector(signatures),
        }
    )


def _graph(graph: Table, file: int, kinds: int, buffers: int) -> NewTable:
    """A graph whose operators and tensors count from `kinds` and `buffers` on."""
    tensors = graph.tables(4, most=MOST_TENSORS, what="tensors")
    operators = graph.tables(10, most=MOST_OPERATORS, what="operators")
    fields = told_again(graph, file, _GRAPH, without=_GRAPH_LOG)
    fields[4] = NewVector([_tensor(tensor, file, buffers) for tensor in tensors])
    fields[10] = NewVector([_operator(operator, file, kinds) for operator in operators])
    return NewTable(fields)


def _tensor(tensor: Table, file: int, buffers: int) -> NewTable:
    fields = told_again(tensor, file, _TENSOR)
    own = tensor.scalar(8, _U32, 0)
    if own:  # 0 stands for none, whoever counts
        fields[8] = Scalar(_U32, buffers + own)
    return NewTable(fields)


def _operator(operator: Table, file: int, kinds: int) -> NewTable:
    fields = told_again(operator, file, _OPERATOR, without=_OPERATOR_LOG)
    fields[4] = Scalar(_U32, kinds + operator.scalar(4, _U32, 0))
    return NewTable(fields)


def _holds_something(buffer: Table) -> bool:
    return bool(buffer.vector(4, 1, most=MOST_BYTES, what="bytes").count or buffer.scalar(6, _U64, 0))


def _buffer(buffer: Table, file: int) -> Node:
    """A buffer; constants may lie behind the tables of their file, and then count from its begin."""
    offset, size = buffer.scalar(6, _U64, 0), buffer.scalar(8, _U64, 0)
    if offset <= 1:  # 0 and 1 stand for none
        return Kept(file, buffer.start)
    fields: dict[int, Field] = {6: Position(file, offset), 8: Scalar(_U64, size)}
    return NewTable(fields)


def _signature(signature: Table, file: int, key: str) -> NewTable:
    if signature.scalar(12, _U32, 0):
        raise Malformed("its signature is not of its one graph")
    fields = told_again(signature, file, _SIGNATURE)
    fields[8] = NewText(key)
    fields[12] = Scalar(_U32, file)
    return NewTable(fields)
