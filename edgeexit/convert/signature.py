"""Puts the names of a stage's tensors into the one signature of a TFLite file."""

from __future__ import annotations

from collections.abc import Mapping

from edgeexit.errors import MissingExtra

_IDENTIFIER = b"TFL3"


def rename_signature(
    model: bytes, inputs: Mapping[str, str], outputs: Mapping[str, str], twins: Mapping[str, str]
) -> bytes | None:
    """The file with every input and output renamed; None where they are not just those named.

    `twins` are further names of outputs, each by the new name of the output that it stands for.

    Raises: MissingExtra.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingExtra("ai-edge-litert", extra="convert", needed_for="naming tensors") from error
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    if not tree.signatureDefs or len(tree.signatureDefs) != 1:
        return None
    signature = tree.signatureDefs[0]
    for entries, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
        if sorted(entry.name.decode() for entry in entries or ()) != sorted(names):
            return None
        for entry in entries:
            entry.name = names[entry.name.decode()].encode()
    places = {entry.name.decode(): entry.tensorIndex for entry in signature.outputs or ()}
    for twin, name in twins.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = twin.encode(), places[name]
        signature.outputs.append(entry)
    signature.signatureKey = b"serving_default"
    builder = schema.flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())
