"""`timm:NAME`, `hf:NAME`, a folder of either, or an ONNX file: a backbone that gets exits."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgeexit.cli.sources.opened import Asked, Opened
from edgeexit.errors import ConfigError
from edgeexit.models import hugging_face_models, timm_models
from edgeexit.models.attach import attach_exits
from edgeexit.models.cut_hugging_face import hugging_face_classes, is_hugging_face
from edgeexit.models.cut_timm import is_timm, timm_classes
from edgeexit.models.description import read_description
from edgeexit.models.opening import open_model
from edgeexit.training.stored import NETWORK_NOTE, describing_notes

TIMM, HUGGING_FACE = "timm:", "hf:"
_OPTIONS = ("after", "branch", "final", "weights", "download", "random_weights", "image_shape", "task")


def open_attached(source: str, asked: Asked) -> Opened:
    """The backbone with exits after the blocks asked for; nothing is fetched unless that is asked for.

    The model's own head stays the last exit where it tells apart as many classes as the images have; else
    there is a new one, like the exits before it. With values to learn all exits are new.
    Raises: ConfigError, DataError, CannotCut, MissingExtra.
    """
    asked.only("a model to attach exits to", *_OPTIONS)
    if asked.download + asked.random_weights + (asked.weights is not None) > 1:
        raise ConfigError(
            "there is more than one place for weights",
            key="weights",
            why="a network has its weights from one place",
            fix="give one of --weights, --download and --random-weights",
        )
    if not asked.after:
        raise ConfigError(
            "where exits go is not said",
            key="after",
            why=f"{source} has none of its own",
            fix="--after 3,6,9 puts exits after the 3rd, 6th and 9th block; the last is at the end anyway",
        )
    model = _model(source, asked)
    own = _own_classes(model)
    values = asked.task == "regression"
    keep = not values and own > 0 and asked.final is None and len(asked.labels) in (0, own)
    if not keep and not values and len(asked.labels) < 2:
        raise ConfigError(
            "what the exits tell apart is not known",
            key="labels",
            why=f"{source} has {f'a head of {own} classes, to be replaced' if own else 'no head'}",
            fix="give --data, a folder with one folder of images for each class, or --labels FILE",
        )
    size = None if asked.image_shape is None else asked.image_shape[1:]
    network = attach_exits(
        model,
        asked.after,
        asked.branch[0] if len(asked.branch) == 1 else asked.branch or "mlp",
        task="regression" if values else "classification",
        classes=None if keep or values else len(asked.labels),
        value_offset=asked.value_offset,
        value_scale=asked.value_scale,
        final=None if keep else asked.final or "linear",
        image_size=size,
        seed=asked.seed,
    )
    description = read_description(describing_notes(network)[NETWORK_NOTE])
    exits = len(network.stages)
    # Of a folder its own name: a bundle says nothing of whose machine it was made on.
    name = source.partition(":")[2] or source
    name = Path(name).resolve().name if Path(name).exists() else name
    return Opened(
        network=network,
        network_words=f"{name}: {description}",
        image_shape=description.image_shape,
        task="regression" if values else "classification",
        classes=0 if values else description.classes,
        untrained=tuple(range(exits - 1 if keep and not asked.random_weights else exits)),
        name=Path(name).name.replace("/", "-").replace(":", "-"),
    )


def _model(source: str, asked: Asked) -> nn.Module | Path:
    """The backbone. Raises: ConfigError, DataError, CannotCut, MissingExtra."""
    library, name = next(
        ((each, source[len(each) :]) for each in (TIMM, HUGGING_FACE) if source.startswith(each)),
        ("", source),
    )
    if not name:
        raise ConfigError(
            f"{source} names no model",
            key="source",
            why="nothing stands behind the colon",
            fix="timm:vit_tiny_patch16_224, for example",
        )
    if Path(name).exists() and not asked.random_weights:
        asked.only("a model on this machine, with its weights", *_OPTIONS[:3], *_OPTIONS[-2:])
        return open_model(name, checkpoint=None, download=False)
    if library == TIMM:
        if asked.weights is not None:
            return timm_models.from_file(name, asked.weights)
        if asked.random_weights:
            return timm_models.random_weights(name, seed=asked.seed)
        return timm_models.from_hub(name) if asked.download else timm_models.from_cache(name)
    if library == HUGGING_FACE:
        if asked.weights is not None:
            raise ConfigError(
                "--weights does not go with hf:",
                key="weights",
                why="a Hugging Face model has its weights with it",
                fix="name the folder that save_pretrained wrote: hf:FOLDER",
            )
        if asked.random_weights:
            return hugging_face_models.random_weights(name, seed=asked.seed, download=False)
        known = hugging_face_models
        return known.from_hub(name) if asked.download else known.from_cache(name)
    raise ConfigError(
        f"there is no {name}",
        key="source",
        why="no such path is here",
        fix="name a folder, an ONNX file, timm:NAME or hf:NAME",
    )


def _own_classes(model: nn.Module | Path) -> int:
    """How many classes the model's own head tells apart; 0 without one."""
    if isinstance(model, Path):
        return 0
    if is_timm(model):
        return timm_classes(model)
    return hugging_face_classes(model) if is_hugging_face(model) else 0
