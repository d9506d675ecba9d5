"""Checkpoints that say themselves what network they are of, so that weights alone are enough to convert."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from edgeexit.errors import DataError, UnsupportedModel
from edgeexit.models.description import Description, describe, read_description
from edgeexit.models.protocol import MultiExitNetwork

# The notes of a checkpoint, beside those that its recipe adds.
NETWORK_NOTE = "network"
LABELS_NOTE = "labels"

# What is known of a file is read before its weights; the largest published ViT with its weights in
# float32 has 8 GB, and no board could run it.
FILE_CAP_BYTES = 8 * 2**30
# A thousand classes of ImageNet take 30 kB.
LABELS_CAP_BYTES = 2**20
_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """A network with its trained weights. `labels` is empty where the file names none."""

    network: MultiExitNetwork
    description: Description
    labels: tuple[str, ...]
    sha256: str


def describing_notes(network: MultiExitNetwork, *, labels: tuple[str, ...] = ()) -> dict[str, str]:
    """What a checkpoint must say so that `read_stored` can load it. Raises: UnsupportedModel."""
    notes = {NETWORK_NOTE: describe(network)}
    if labels:
        notes[LABELS_NOTE] = msgspec.json.encode(labels).decode()
    return notes


def read_stored(path: Path) -> StoredNetwork:
    """The network of a safetensors file, built as the file describes it.

    Nothing is built before the file has proved to hold just the tensors of that network.
    Raises: DataError naming the file and what is wrong.
    """
    file = str(path)

    def unusable(why: str, fix: str | None = None) -> DataError:
        return DataError(f"{path} is no usable checkpoint", file=file, why=why, fix=fix)

    if not path.is_file():
        raise unusable("there is no such file", "name a safetensors file; recipes as in export/ write one")
    try:
        if path.stat().st_size > FILE_CAP_BYTES:
            raise unusable(f"it is larger than {FILE_CAP_BYTES} bytes")
        with safe_open(path, framework="pt") as stored:
            notes: dict[str, str] = stored.metadata() or {}
            if NETWORK_NOTE not in notes:
                raise unusable(
                    "it does not say what network it is of",
                    "store it with the notes of edgeexit.training.stored.describing_notes,"
                    " or convert from a recipe as in export/",
                )
            description = read_description(notes[NETWORK_NOTE])
            labels = _labels(notes.get(LABELS_NOTE))
            with torch.device("meta"):  # shapes only: takes no memory, whatever the file asks for
                expected = description.build().stages.state_dict()
            if set(stored.keys()) != set(expected):
                raise unusable("it holds other tensors than the network that it describes")
            for name, tensor in expected.items():
                if tuple(stored.get_slice(name).get_shape()) != tuple(tensor.shape):
                    raise unusable(f"{name} has another shape than in the network that it describes")
            tensors = {name: stored.get_tensor(name) for name in expected}
        sha256 = _sha256(path)
    except (SafetensorError, OSError) as error:
        raise unusable(str(error), "train and store it again") from error
    except UnsupportedModel as error:
        raise unusable(error.what, "store it again with this version") from error
    network = description.build()
    network.stages.load_state_dict(tensors)
    return StoredNetwork(network, description, labels, sha256)


def _labels(text: str | None) -> tuple[str, ...]:
    """The labels of a note; none where it holds none that can be read."""
    if text is None or len(text) > LABELS_CAP_BYTES:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
