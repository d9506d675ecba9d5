"""What an ONNX file must be before a session is made of it: whole, closed in itself, and numbers.

The file is walked, not loaded: nothing outside it is opened, whatever it says of weights kept elsewhere.

Source: onnx/onnx.proto, for the numbers of fields and types; ONNX operator schemas, for the operators.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from edgeexit.bundle.flatbuffer import Malformed
from edgeexit.bundle.mapped import examine_file
from edgeexit.bundle.nan import CHUNK, Floating, holds_nan
from edgeexit.bundle.protobuf import LENGTH, Field, Message, whole
from edgeexit.errors import UnsafeModel

# Caps, as for TFLite. A whole ViT-Base is one graph of 1,500 nodes.
MOST_NODES = 65_536
MOST_TENSORS = 65_536
MOST_ATTRIBUTES = 64  # of one node; RNNs have ten
MOST_ENDS = 1024  # inputs or outputs of one node; a concatenation of everything before has some dozens
MOST_DIMS = 8
MOST_ELEMENTS = 2**26  # of one tensor, as in a manifest
MOST_DEPTH = 4  # graphs within graphs; none is needed
LONGEST_NAME = 4096  # exporters name tensors by the path of their module
# 13 is the oldest opset that anything still writes, 30 is beyond the newest.
OPSETS = range(13, 31)

# Standard operators alone: "" and its other spelling. What a vendor calls its own differs by machine.
_STANDARD = ("", "ai.onnx")
# Repetition without an end, and sizes that come from chance or from values: no stage needs them.
_REFUSED = frozenset(
    ("Loop", "Scan", "SequenceMap", "Range", "EyeLike", "RandomNormal", "RandomUniform", "StringNormalizer")
)
# Operators whose result is as large as one of their inputs says: which one that is.
_SIZED = {"Expand": 1, "ConstantOfShape": 0, "Tile": 1, "Pad": 1}

# Bits of one element, by TensorProto.DataType; strings (8) are not here.
_TYPES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22)
_WIDTHS = (32, 8, 8, 16, 16, 32, 64, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4)
_BITS = dict(zip(_TYPES, _WIDTHS, strict=True))
_FLOATS: dict[int, Floating] = {1: "f32", 10: "f16", 11: "f64", 16: "bf16"}
_INT64, _HALVES = 7, (10, 16)

# The fields of each message that are understood; others are refused, because they might mean anything.
_MODEL = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14))
_GRAPH = frozenset((1, 2, 5, 10, 11, 12, 13, 14, 16))
_NODE = frozenset((1, 2, 3, 4, 5, 6, 7, 9))
_ATTRIBUTE = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 20))
_TENSOR = frozenset((1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 16))

OUTPUT_SUFFIX = ".out"
"""What the name of an output ends with in an ONNX stage: a graph cannot give a tensor of a name it takes.

Names of tensors are identifiers, which have no dot."""


def output_name(name: str) -> str:
    """What an ONNX stage calls the output that the manifest knows by this name."""
    return f"{name}{OUTPUT_SUFFIX}"


def check_onnx(path: Path, *, file: str) -> None:
    """Examine an ONNX file in place, in little memory.

    Refused: what is no ONNX model or leaves itself; weights in other files; operators of vendors and loops;
    shapes beyond all use; constants that do not fill their shape; weights that are no numbers.
    Raises: UnsafeModel, BundleError when it cannot be read.
    """
    examine_file(path, _examine, file=file)


def check_onnx_bytes(data: bytes, *, file: str) -> None:
    """The same for a file that is in memory. Raises: UnsafeModel."""
    _examine(memoryview(data), file)


def _examine(data: memoryview, file: str) -> None:
    why = fix = None
    try:
        _Model(data).check()
    except Malformed as error:
        why = str(error)
    except _Foreign as error:
        why, fix = str(error), "convert the network with standard operators, its weights in the file"
    if why is not None:
        # Raised here, where no frame of the walk holds on to the mapped file any more.
        if fix is None:
            raise UnsafeModel(file=file, why=why)
        raise UnsafeModel(file=file, why=why, fix=fix)


class _Foreign(Exception):
    """The model reaches outside its file, or asks for what no stage needs."""


@dataclass(slots=True)
class _Tensor:
    """What is asked of a constant."""

    dims: list[int] = field(default_factory=list)
    kind: int = 0
    name: str = ""
    data: Field | None = None


class _Model:
    """One file under examination."""

    def __init__(self, data: memoryview) -> None:
        self._whole = whole(data)
        self._nodes = 0
        self._tensors = 0
        # Sizes that operators may refer to: small whole constants, by name.
        self._sizes: dict[str, list[int]] = {}

    def check(self) -> None:
        opsets = 0
        graph: Message | None = None
        for each in self._whole.fields():
            if each.number in (20, 25):
                raise _Foreign("it brings functions or training steps of its own")
            self._known(each, _MODEL, "model")
            if each.number == 8:
                opsets += 1
                self._opset(self._whole.inner(each))
            elif each.number == 7:
                if graph is not None:
                    raise Malformed("it has two graphs")
                graph = self._whole.inner(each)
        if graph is None or opsets != 1:
            raise Malformed("it is no ONNX model of one graph and one set of operators")
        self._graph(graph, 0)

    def _opset(self, message: Message) -> None:
        domain, version = "", 0
        for each in message.fields():
            if each.number == 1:
                domain = message.text(each, most=LONGEST_NAME)
            elif each.number == 2:
                version = each.value
        if domain not in _STANDARD:
            raise _Foreign(f"it needs operators of {domain[:64]!r}, which are no part of ONNX")
        if version not in OPSETS:
            raise Malformed(f"it needs opset {version}; {OPSETS.start} to {OPSETS.stop - 1} are known")

    def _graph(self, graph: Message, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise Malformed("its graphs are nested too deeply")
        nodes: list[Message] = []
        for each in graph.fields():
            if each.number == 15:
                raise _Foreign("it keeps sparse weights")
            self._known(each, _GRAPH, "graph")
            if each.number == 5:
                self._constant(graph.inner(each))
            elif each.number == 1:
                self._nodes += 1
                if self._nodes > MOST_NODES:
                    raise Malformed(f"it has more than {MOST_NODES} nodes")
                nodes.append(graph.inner(each))
            elif each.number in (11, 12, 13):
                self._value(graph.inner(each))
        for node in nodes:
            self._node(node, depth)

    def _node(self, node: Message, depth: int) -> None:
        kind = domain = ""
        inputs: list[str] = []
        outputs: list[str] = []
        attributes = 0
        for each in node.fields():
            self._known(each, _NODE, "node")
            if each.number in (1, 2):
                ends = inputs if each.number == 1 else outputs
                ends.append(node.text(each, most=LONGEST_NAME))
                if len(ends) > MOST_ENDS:
                    raise Malformed(f"a node has more than {MOST_ENDS} inputs or outputs")
            elif each.number == 4:
                kind = node.text(each, most=LONGEST_NAME)
            elif each.number == 7:
                domain = node.text(each, most=LONGEST_NAME)
            elif each.number == 5:
                attributes += 1
                if attributes > MOST_ATTRIBUTES:
                    raise Malformed(f"a node has more than {MOST_ATTRIBUTES} attributes")
                self._attribute(node.inner(each), outputs, depth)
        if domain not in _STANDARD:
            raise _Foreign(f"it calls {kind[:64]!r} of {domain[:64]!r}, which is no part of ONNX")
        if kind in _REFUSED:
            raise _Foreign(f"it calls {kind}, whose work or size nothing bounds")
        place = _SIZED.get(kind)
        if place is not None and place < len(inputs):
            self._bounded(kind, inputs[place])

    def _bounded(self, kind: str, source: str) -> None:
        """Refuse an operator whose result has a size that is not in the file, or an absurd one."""
        sizes = self._sizes.get(source)
        if sizes is None:
            raise _Foreign(f"{kind} takes its size from what is computed")
        absolute = [max(1, abs(size)) for size in sizes]
        if (max(absolute, default=1) if kind == "Pad" else prod(absolute)) > MOST_ELEMENTS:
            raise Malformed(f"{kind} would make a tensor of {sizes[:MOST_DIMS]}")

    def _attribute(self, attribute: Message, outputs: list[str], depth: int) -> None:
        for each in attribute.fields():
            self._known(each, _ATTRIBUTE, "attribute")
            if each.number in (5, 10):
                sizes = self._constant(attribute.inner(each))
                if each.number == 5 and sizes is not None and len(outputs) == 1:
                    self._sizes[outputs[0]] = sizes  # of a node named Constant
            elif each.number in (6, 11):
                self._graph(attribute.inner(each), depth + 1)

    def _value(self, value: Message) -> None:
        """An input, an output, or the noted shape of a tensor between them: a tensor of numbers."""
        for each in value.fields():
            if each.number != 2:
                continue
            kind = value.inner(each)
            for inner in kind.fields():
                if inner.number == 1:
                    self._tensor_type(kind.inner(inner))
                elif inner.wire == LENGTH and inner.number != 6:  # 6 notes what a tensor stands for
                    raise _Foreign("it passes something else than tensors")

    def _tensor_type(self, message: Message) -> None:
        for each in message.fields():
            if each.number == 1 and each.value not in _BITS:
                raise Malformed("a tensor is of an unknown type")
            if each.number == 2:
                self._shape(message.inner(each))

    def _shape(self, message: Message) -> None:
        sizes: list[int] = []
        for each in message.fields():
            dimension = message.inner(each)
            sizes.extend(field.value for field in dimension.fields() if field.number == 1)
            self._sensible(sizes)

    def _constant(self, message: Message) -> list[int] | None:
        """Refuse a constant that is kept elsewhere, does not fill its shape, or is no number.

        Gives its values where they are few and whole, as sizes are.
        """
        self._tensors += 1
        if self._tensors > MOST_TENSORS:
            raise Malformed(f"it has more than {MOST_TENSORS} constants")
        tensor = _Tensor()
        for each in message.fields():
            if each.number == 13 or (each.number == 14 and each.value != 0):
                raise _Foreign("it keeps weights in files outside the bundle")
            self._known(each, _TENSOR, "tensor")
            if each.number == 1:
                tensor.dims += message.numbers(each, most=MOST_DIMS, what="dimensions")
                self._sensible(tensor.dims)
            elif each.number == 2:
                tensor.kind = each.value
            elif each.number == 8:
                tensor.name = message.text(each, most=LONGEST_NAME)
            elif each.number in (4, 5, 7, 9, 10, 11):
                if tensor.data is not None:
                    raise Malformed("a constant has its numbers twice")
                tensor.data = each
        sizes = self._filled(message, tensor)
        if sizes is not None:
            self._sizes[tensor.name] = sizes
        return sizes

    def _filled(self, message: Message, tensor: _Tensor) -> list[int] | None:
        bits = _BITS.get(tensor.kind)
        if bits is None:
            raise Malformed("a constant is of an unknown type")
        elements = prod(tensor.dims)
        held = tensor.data
        if held is None:
            if elements:
                raise Malformed("a constant has no numbers")
            return []
        if held.wire != LENGTH:
            raise Malformed("a constant's numbers do not lie in one piece")
        size_bytes = held.stop - held.start
        if held.number in (5, 7, 11):
            # Numbers of as many bytes as each needs: as many as there are bytes that end one.
            if tensor.kind in _HALVES:
                raise Malformed("numbers of 16 bits are kept as whole ones")
            raw = np.frombuffer(message.data, np.uint8, size_bytes, held.start)
            count = sum(int((raw[at : at + CHUNK] < 0x80).sum()) for at in range(0, size_bytes, CHUNK))
            if count != elements:
                raise Malformed(f"a constant has {count} numbers where its shape takes {elements}")
            few = count <= MOST_DIMS * 2
            return message.numbers(held, most=count, what="sizes") if few and tensor.kind == _INT64 else None
        wanted = (elements * bits + 7) // 8
        if size_bytes != wanted:
            raise Malformed(f"a constant has {size_bytes} bytes where its shape takes {wanted}")
        if holds_nan(message.data, held.start, size_bytes, _FLOATS.get(tensor.kind)):
            raise Malformed("it holds weights that are no numbers (NaN)")
        if tensor.kind == _INT64 and elements <= MOST_DIMS * 2:
            return [int(n) for n in np.frombuffer(message.data, "<i8", elements, held.start)]
        return None

    def _sensible(self, sizes: list[int]) -> None:
        if len(sizes) > MOST_DIMS or any(size < 0 for size in sizes) or prod(sizes) > MOST_ELEMENTS:
            raise Malformed(f"a tensor has the shape {sizes[: MOST_DIMS + 1]}, which nothing needs")

    def _known(self, each: Field, known: frozenset[int], what: str) -> None:
        if each.number not in known:
            raise Malformed(f"its {what} has a field {each.number}, which is not known")
