"""Which kind of source a word is."""

from __future__ import annotations

import re
from pathlib import Path

from edgeexit.cli.sources.opened import Asked, Opened
from edgeexit.errors import ConfigError

# A dotted module name, a colon, and the name of a function.
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
KINDS = (
    "a recipe (export/x.py), a checkpoint, timm:NAME, hf:NAME, the folder or ONNX file of a model, or "
    "module:factory"
)


def is_recipe(source: str) -> bool:
    """Whether a word is the file of a recipe, there or not."""
    return source.endswith(".py")


def open_source(source: str, asked: Asked) -> Opened:
    """The network that a word names, where it is no recipe.

    Raises: ConfigError when it is nothing that can be opened; what the kinds raise.
    """
    path = Path(source)
    if source.startswith(("timm:", "hf:")) or path.is_dir() or path.suffix == ".onnx":
        from edgeexit.cli.sources.attached import open_attached

        return open_attached(source, asked)
    if path.is_file() or path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
        from edgeexit.cli.sources.checkpoint import open_checkpoint

        return open_checkpoint(path, asked)
    if _FACTORY.fullmatch(source):
        from edgeexit.cli.sources.factory import open_factory

        return open_factory(source, asked)
    raise ConfigError(
        f"{source} is nothing that can be converted",
        key="source",
        why="there is no such file or folder, and it names no model",
        fix=f"give {KINDS}",
    )
