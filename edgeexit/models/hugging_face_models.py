"""Hugging Face transformers' own loaders, their errors in our words."""

from __future__ import annotations

import pickle
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from torch import nn

from edgeexit.errors import CannotCut, DataError, MissingExtra
from edgeexit.models.cut_hugging_face import KNOWN
from edgeexit.models.torchvision_operators import make_importable

# What reading a damaged or foreign folder ends in; all of them mean that it cannot be used.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, ImportError),
    *(pickle.UnpicklingError, BadZipFile, SafetensorError),
)
# Parts that no exit uses: a checkpoint may lack them.
_UNUSED = ("pooler", "mask_token")


def from_folder(folder: Path) -> nn.Module:
    """A model as `save_pretrained` stores it; nothing is fetched, no code of the folder is run.

    Raises: DataError when it cannot be read or lacks weights, CannotCut, MissingExtra.
    """
    return _load(str(folder), local=True)


def from_hub(name: str) -> nn.Module:
    """A pretrained model by its name, fetched by the library. Raises: DataError, CannotCut, MissingExtra."""
    return _load(name, local=False)


def from_cache(name: str) -> nn.Module:
    """A pretrained model by its name, from what the library fetched before; nothing is fetched now.

    Raises: DataError, CannotCut, MissingExtra.
    """
    try:
        return _load(name, local=True)
    except DataError as error:
        raise DataError(
            f"{name} is not on this machine",
            file=name,
            why=error.why,
            fix="give --download to fetch it, or a folder: hf:FOLDER",
        ) from error


def random_weights(name: str, *, seed: int, download: bool) -> nn.Module:
    """The architecture of a folder or a name, with weights that mean nothing, drawn from `seed`.

    With `download` its config.json may be fetched. Raises: DataError, CannotCut, MissingExtra.
    """
    _require()
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=not download)
        (architecture,) = config.architectures or ("",)
        if architecture not in KNOWN:
            raise CannotCut(model=architecture or name, why=f"its class is none of {', '.join(KNOWN)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = getattr(transformers, architecture)(config)
    except _UNREADABLE as error:
        raise DataError(
            f"the architecture of {name} is not on this machine",
            file=name,
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="give --download to fetch its config.json, or a folder that has one: hf:FOLDER",
        ) from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"transformers gave {type(model).__name__}")
    return model.to(torch.float32)


def _require() -> None:
    make_importable()
    try:
        import transformers  # noqa: F401 - imported to learn whether it is there
    except ImportError as error:
        raise MissingExtra("transformers", extra="models", needed_for="opening one of its models") from error


def _load(name: str, *, local: bool) -> nn.Module:
    _require()
    import transformers

    def unusable(why: str) -> DataError:
        return DataError(
            f"{name} is no usable model",
            file=name,
            why=why,
            fix="name a folder that save_pretrained wrote" if local else "see whether the name is right",
        )

    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=local)
        (architecture,) = config.architectures or ("",)
        if architecture not in KNOWN:
            raise CannotCut(model=architecture or name, why=f"its class is none of {', '.join(KNOWN)}")
        model, told = getattr(transformers, architecture).from_pretrained(
            name, local_files_only=local, output_loading_info=True, dtype=torch.float32, weights_only=True
        )
    except _UNREADABLE as error:
        raise unusable(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(
        key
        for key in (*told["missing_keys"], *told["mismatched_keys"])
        if not any(part in str(key) for part in _UNUSED)
    )
    if missing:
        raise unusable(f"it holds no fitting weights for {', '.join(map(str, missing[:4]))}")
    if not isinstance(model, nn.Module):
        raise unusable(f"it gave {type(model).__name__}")
    return model
