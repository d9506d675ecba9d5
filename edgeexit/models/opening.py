"""Models from disk or by name: which library reads what, and that nothing is fetched unasked."""

from __future__ import annotations

from pathlib import Path

import msgspec
from torch import nn

from edgeexit.errors import ConfigError, DataError
from edgeexit.models import hugging_face_models, timm_models

# A config.json is a page of settings; a larger one is something else.
CONFIG_CAP_BYTES = 2**20


class _Config(msgspec.Struct, frozen=True):
    """What decides whose folder it is: transformers writes model_type, timm writes architecture."""

    model_type: str | None = None
    architecture: str | None = None


def open_model(source: str | Path, *, checkpoint: Path | None, download: bool) -> nn.Module | Path:
    """The model of a folder, of an architecture with its checkpoint, or of a name on a hub.

    An ONNX file is given back as its path: it is no torch module.
    Raises: ConfigError when it is not clear what is meant, DataError when files cannot be read, MissingExtra.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        if path.suffix == ".onnx":
            return path
        raise ConfigError(
            f"{path} does not say of which model it is",
            key="model",
            why="of files, only ONNX holds the network beside its weights",
            fix="give the name of timm's architecture as model, and this file as checkpoint=",
        )
    name = str(source)
    if checkpoint is not None:
        return timm_models.from_file(name, checkpoint)
    if not download:
        raise ConfigError(
            f"{name!r} is neither a folder nor a file here",
            key="model",
            why="nothing is fetched unless it is asked for",
            fix="give a folder, a name with checkpoint=…, or a name with download=True",
        )
    if timm_models.is_hub_name(name):
        return timm_models.from_hub(name)
    return hugging_face_models.from_hub(name)


def _folder(path: Path) -> nn.Module:
    file = path / "config.json"
    try:
        if file.stat().st_size > CONFIG_CAP_BYTES:
            raise DataError(f"{file} is refused", file=str(file), why=f"over {CONFIG_CAP_BYTES} bytes")
        config = msgspec.json.decode(file.read_bytes(), type=_Config)
    except OSError as error:
        raise DataError(
            f"{path} holds no model",
            file=str(path),
            why=str(error),
            fix="name a folder with config.json and weights, as save_pretrained writes it",
        ) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DataError(f"{file} cannot be read", file=str(file), why=str(error)) from error
    if config.architecture is not None:
        return timm_models.from_folder(path)
    if config.model_type is not None:
        return hugging_face_models.from_folder(path)
    raise DataError(
        f"{file} names no model", file=str(file), why="neither model_type nor architecture is in it"
    )
