"""Weights that do not say what they are of: the user names the family, and its settings in a file."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from edgeexit.errors import ConfigError, DataError, UnsupportedModel
from edgeexit.models.description import FAMILIES, Description, read_description
from edgeexit.training.stored import FILE_CAP_BYTES, StoredNetwork

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A page of settings; a larger file is something else.
CONFIG_CAP_BYTES = 2**20
# Where training programs put the weights within what they store.
_NESTED = ("state_dict", "model", "network", "model_state_dict", "ema", "weights")
# What wrappers put before every name: ours, and those of parallel training and compilation.
_PREFIXES = ("module.", "_orig_mod.", "stages.")
_UNREADABLE = (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, AttributeError)


def read_family(path: Path, family: str, config: Path | None) -> StoredNetwork:
    """The network of a family with the weights of a safetensors or torch file; nothing is unpickled.

    `config` is a JSON or TOML file with the family's settings.
    Raises: ConfigError when family or settings do not fit, DataError when the weights cannot be read or are
    of another network.
    """
    description = _description(family, config)
    tensors = _tensors(path)
    with torch.device("meta"):  # shapes only: takes no memory, whatever the settings ask for
        expected = description.build().stages.state_dict()
    found = _named(tensors, set(expected))
    missing, foreign = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or foreign:
        parts = []
        for word, names in (("lacks", missing), ("has, unexpected,", foreign)):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"it {word} {', '.join(names[:3])}{more}")
        raise _other(path, "; ".join(parts))
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            shapes = f"{list(found[name].shape)}, the settings want {list(tensor.shape)}"
            raise _other(path, f"{name} has the shape {shapes}")
    network = description.build()
    network.stages.load_state_dict(found)
    network.stages.eval()
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return StoredNetwork(network, description, (), sha256)


def _description(family: str, config: Path | None) -> Description:
    """Raises: ConfigError."""
    if family not in FAMILIES:
        raise ConfigError(
            f"there is no family {family!r}",
            key="family",
            why=f"known: {', '.join(FAMILIES)}",
            fix="choose a known one, or give a function that builds the network: module:factory",
        )
    if config is None:
        raise ConfigError(
            f"the settings of this {family} are not known",
            key="config",
            why="weights alone do not say how many heads, or after which blocks exits are",
            fix="give --config FILE, JSON or TOML, as in docs/converting.md",
        )
    try:
        if config.stat().st_size > CONFIG_CAP_BYTES:
            raise ConfigError(f"{config} is refused", key="config", why=f"over {CONFIG_CAP_BYTES} bytes")
        data = config.read_bytes()
        settings: object = (
            tomllib.loads(data.decode()) if config.suffix == ".toml" else msgspec.json.decode(data)
        )
        return read_description(msgspec.json.encode({"family": family, "config": settings}).decode())
    except (OSError, UnicodeError, tomllib.TOMLDecodeError, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(
            f"{config} cannot be read",
            key="config",
            why=str(error),
            fix="write the family's settings as JSON, or as TOML in a file that ends in .toml",
        ) from error
    except UnsupportedModel as error:
        raise ConfigError(
            f"{config} describes no {family}",
            key="config",
            why=error.what.partition(": ")[2] or error.what,
            fix="see docs/converting.md for the settings",
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name. Raises: DataError."""
    if not path.is_file():
        raise DataError(
            f"there is no file {path}",
            file=str(path),
            why="a folder is there" if path.exists() else "there is no such path",
            fix="name the file of weights",
        )
    if path.stat().st_size > FILE_CAP_BYTES:
        raise DataError(f"{path} is refused", file=str(path), why=f"over {FILE_CAP_BYTES} bytes")
    try:
        if path.suffix == ".safetensors":
            loaded: dict[str, Tensor] = load_file(path)
            return loaded
        read: object = torch.load(path, map_location="cpu", weights_only=True)
    except (*_UNREADABLE, pickle.UnpicklingError, BadZipFile, SafetensorError) as error:
        text = str(error).strip().splitlines()
        raise DataError(
            f"{path} cannot be read",
            file=str(path),
            why=text[0] if text else type(error).__name__,
            fix="store weights alone: safetensors, or torch.save(network.state_dict(), FILE)",
        ) from error
    while isinstance(read, dict) and not any(isinstance(each, Tensor) for each in read.values()):
        nested = next((read[key] for key in _NESTED if isinstance(read.get(key), dict)), None)
        if nested is None:
            break
        read = nested
    tensors = {str(k): v for k, v in read.items() if isinstance(v, Tensor)} if isinstance(read, dict) else {}
    if not tensors:
        raise DataError(
            f"{path} holds no weights",
            file=str(path),
            why="no dict of tensors is in it",
            fix="store them with torch.save(network.state_dict(), FILE)",
        )
    return tensors


def _named(tensors: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """The tensors under the names that they have within `stages`."""
    while not expected & tensors.keys():
        prefix = next((each for each in _PREFIXES if all(name.startswith(each) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _other(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is of another network than the settings describe",
        file=str(path),
        why=why,
        fix="correct the settings, or name the right file",
    )
