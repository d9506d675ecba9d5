"""Trained weights on disk: written whole or not at all, found again by everything that shaped them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from edgeexit.errors import DataError
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.training.data import Samples

# Raise it when training itself changes, so that weights of an older loop are not taken for new ones.
TRAINING_REVISION = 1

# How many hexadecimal digits of the key stand in the file name: 64 bits, no two settings collide.
KEY_DIGITS = 16
# Samples whose pixels are held a second time while they are digested.
_PART = 1024


def settings_key(settings: Sequence[object], data: Sequence[Samples] = ()) -> str:
    """One name for these settings: the same settings give the same key, any other ones another.

    `settings` are dataclasses or JSON values. Of `data` the pixels and targets count, not the names.

    Raises: TypeError when a setting is neither.
    """
    digest = hashlib.sha256()
    described = [
        {type(s).__name__: asdict(s)} if is_dataclass(s) and not isinstance(s, type) else s for s in settings
    ]
    document = {"revision": TRAINING_REVISION, "torch": torch.__version__, "settings": described}
    digest.update(json.dumps(document, sort_keys=True, allow_nan=False).encode())
    for samples in data:
        digest.update(repr(samples.images.shape).encode())
        for start in range(0, len(samples), _PART):
            digest.update(samples.take(slice(start, start + _PART)).pixels().tobytes())
        digest.update(samples.targets.tobytes())
    return digest.hexdigest()


def checkpoint_path(directory: Path, name: str, key: str) -> Path:
    """Where the weights of this key lie, or will."""
    return directory / f"{name}-{key[:KEY_DIGITS]}.safetensors"


def save_checkpoint(network: MultiExitNetwork, path: Path, *, key: str, notes: dict[str, str]) -> str:
    """Write weights, key and notes in one step; the file's SHA-256.

    Raises: OSError.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.stages.state_dict().items()}
    content = save(tensors, metadata={**notes, "key": key})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def load_checkpoint(network: MultiExitNetwork, path: Path, *, key: str) -> str | None:
    """Put stored weights into the network; the file's SHA-256, or None where there is no such file.

    Raises: DataError when the file is damaged, has another key, or does not fit the network; the
    network is then unchanged.
    """
    if not path.is_file():
        return None

    def unusable(why: str) -> DataError:
        return DataError(
            f"{path.name} is no usable checkpoint",
            file=str(path),
            why=why,
            fix="delete it; the network is then trained again",
        )

    expected = network.stages.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                raise unusable("it was made with other settings")
            if set(file.keys()) != set(expected):
                raise unusable("it holds other tensors than the network")
            for name, tensor in expected.items():
                if tuple(file.get_slice(name).get_shape()) != tuple(tensor.shape):
                    raise unusable(f"{name} has another shape than in the network")
            tensors = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError) as error:
        raise unusable(str(error)) from error
    network.stages.load_state_dict(tensors)
    return hashlib.sha256(path.read_bytes()).hexdigest()
