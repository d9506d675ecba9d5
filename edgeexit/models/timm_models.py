"""timm's own loaders, its errors in our words."""

from __future__ import annotations

import pickle
from difflib import get_close_matches
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from edgeexit.errors import ConfigError, DataError, MissingExtra
from edgeexit.models.torchvision_operators import make_importable

# What reading a damaged or foreign weights file ends in; all of them mean that the file cannot be used.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, AttributeError),
    *(pickle.UnpicklingError, BadZipFile, SafetensorError),
)


def is_hub_name(name: str) -> bool:
    """Whether a name is timm's: without a slash, or one of its own places."""
    return "/" not in name or name.startswith(("timm/", "hf-hub:", "hf_hub:"))


def from_file(architecture: str, file: Path) -> nn.Module:
    """An architecture of timm with the weights of a safetensors or torch file; nothing is unpickled.

    Raises: ConfigError when there is no such architecture, DataError when the file cannot be read or is of
    another model, MissingExtra.
    """
    _require()
    import timm
    from timm.models import load_state_dict
    from timm.models.vision_transformer import checkpoint_filter_fn

    _require_known(architecture)
    if not file.is_file():
        raise _unusable(file, "there is no such file")
    try:
        weights = load_state_dict(str(file), weights_only=True)
        head = weights.get("head.weight")
        classes = head.shape[0] if isinstance(head, Tensor) else 0
        model = timm.create_model(architecture, pretrained=False, num_classes=classes)
        if type(model).__module__ in ("timm.models.vision_transformer", "timm.models.deit"):
            weights = checkpoint_filter_fn(weights, model)
        model.load_state_dict(weights, strict=True)
    except _UNREADABLE as error:
        raise _unusable(file, _first_line(error)) from error
    return _module(model)


def from_folder(folder: Path) -> nn.Module:
    """A model as timm stores it: config.json and weights. Raises: DataError, MissingExtra."""
    _require()
    import timm

    try:
        return _module(timm.create_model(f"local-dir:{folder}", pretrained=True))
    except _UNREADABLE as error:
        raise _unusable(folder, _first_line(error)) from error


def from_hub(name: str) -> nn.Module:
    """A pretrained model by its name, fetched by timm. Raises: DataError, MissingExtra."""
    _require()
    import timm

    try:
        return _module(timm.create_model(name, pretrained=True))
    except _UNREADABLE as error:
        raise DataError(f"{name} cannot be fetched", file=name, why=_first_line(error)) from error


def from_cache(name: str) -> nn.Module:
    """A pretrained model by its name, from what timm fetched before; nothing is fetched now.

    Raises: ConfigError when there is no such architecture, DataError when it was not fetched, MissingExtra.
    """
    _require()
    import timm
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    try:
        if not timm.is_model(name):
            folder = snapshot_download(_hub_place(name), local_files_only=True)
            return from_folder(Path(folder))
        published = timm.get_pretrained_cfg(name)
        place = getattr(published, "hf_hub_id", None)
        if place is None:
            raise _not_here(name, "timm publishes no weights of it on the hub")
        wanted = getattr(published, "hf_hub_filename", None)
        for file in (wanted,) if wanted else ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(place, file)
            if isinstance(found, str):
                return _module(
                    timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": found})
                )
    except _UNREADABLE as error:
        raise _not_here(name, _first_line(error)) from error
    raise _not_here(name, f"{place} was not fetched before")


def random_weights(name: str, *, seed: int) -> nn.Module:
    """An architecture of timm with weights that mean nothing, drawn from `seed`.

    Raises: ConfigError, MissingExtra.
    """
    _require()
    import timm

    _require_known(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _module(timm.create_model(name, pretrained=False))


def _hub_place(name: str) -> str:
    for prefix in ("hf-hub:", "hf_hub:"):
        name = name.removeprefix(prefix)
    if "/" not in name:
        _require_known(name)
    return name


def _require_known(architecture: str) -> None:
    import timm

    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"timm knows no architecture {architecture!r}",
            key="model",
            why=f"timm {timm.__version__} has no model of that name",
            fix=f"{meant}see timm.list_models('*vit*')",
        )


def _not_here(name: str, why: str) -> DataError:
    return DataError(
        f"the weights of {name} are not on this machine",
        file=name,
        why=why,
        fix="give --download to fetch them, --weights FILE, or --random-weights to see sizes and times",
    )


def _require() -> None:
    make_importable()
    try:
        import timm  # noqa: F401 - imported to learn whether it is there
    except ImportError as error:
        raise MissingExtra("timm", extra="models", needed_for="opening one of its models") from error


def _module(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"timm gave {type(model).__name__}")
    return model.to(torch.float32)


def _unusable(place: Path, why: str) -> DataError:
    return DataError(
        f"{place} is no usable checkpoint",
        file=str(place),
        why=why,
        fix="give weights of just this architecture, stored by safetensors or torch.save",
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {' '.join(text.split())[:300] if text else 'no message'}"
