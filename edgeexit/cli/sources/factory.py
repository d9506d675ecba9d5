"""`module:factory`: a function of the user's own that gives a network."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeexit.bundle.manifest import Task
from edgeexit.cli.sources.opened import Asked, ImageShape, Opened
from edgeexit.errors import ConfigError, EdgeExitError, UnsupportedModel
from edgeexit.models.protocol import MultiExitNetwork, run_exits

_FORM = "name a module of the working directory and a function in it: my_model:make"


def open_factory(source: str, asked: Asked) -> Opened:
    """Import the module from the working directory, call the factory, and run its network once.

    The code is the user's own and runs with the user's rights.
    Raises: ConfigError, UnsupportedModel.
    """
    asked.only("a module:factory", "image_shape", "task")
    module, _, name = source.partition(":")
    network = _made(source, _found(module, name, source))
    shape = asked.image_shape or _own_shape(network, source)
    width = _width(network, shape, source)
    task: Task = asked.task or "classification"
    if task == "regression" and width != 2:
        raise UnsupportedModel(
            f"the exits of {source} give {width} numbers", expected="2 for a regression: value and spread"
        )
    return Opened(
        network=network,
        network_words=f"{type(network).__name__} of {source}, {len(network.stages)} exits",
        image_shape=shape,
        task=task,
        classes=width if task == "classification" else 0,
        recipe_sha256=_file_sha256(module),
        name=name.replace("_", "-"),
    )


def _file_sha256(module: str) -> str | None:
    """The digest of the module's own file, as a recipe's; None where it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _found(module: str, name: str, source: str) -> Callable[[], object]:
    """The factory. Raises: ConfigError."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if missing == module or module.startswith(f"{missing}."):
            raise _refused(source, f"there is no module {missing} in {here}", _FORM) from error
        raise _refused(source, f"{module} needs {missing}, which is not installed", "install it") from error
    except Exception as error:
        raise _refused(source, f"importing {module} fails: {_told(error, here)}", "correct it") from error
    factory = getattr(imported, name, None)
    if factory is None:
        known = [each for each, value in vars(imported).items() if getattr(value, "__module__", "") == module]
        raise _refused(source, f"{module} has no {name}; it has {', '.join(known[:12]) or 'nothing'}", _FORM)
    if not callable(factory):
        raise _refused(source, f"{name} is {_kind(factory)}", "give a function that returns the network")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise _refused(
            source, f"{name} wants arguments: {error}", "give a function that needs none"
        ) from error
    except ValueError:
        pass  # what is built in does not tell; calling it will
    called: Callable[[], object] = factory
    return called


def _made(source: str, factory: Callable[[], object]) -> MultiExitNetwork:
    """What the factory gives, if it is a network. Raises: ConfigError, UnsupportedModel."""
    try:
        made = factory()
    except EdgeExitError:
        raise
    except Exception as error:
        raise _refused(source, f"it fails: {_told(error, str(Path.cwd()))}", "correct it") from error
    stages = getattr(made, "stages", None)
    if not isinstance(made, nn.Module) or not isinstance(stages, nn.ModuleList) or not len(stages):
        raise UnsupportedModel(
            f"{source} gives {_kind(made)}",
            expected="an nn.Module with `stages`, a non-empty nn.ModuleList; or attach exits to a model"
            " with edgeexit.models.attach.attach_exits and return that",
        )
    # The protocol asks for stages, which are there; what they do is seen when they run.
    network: MultiExitNetwork = made  # type: ignore[assignment]
    return network


def _own_shape(network: MultiExitNetwork, source: str) -> ImageShape:
    """The network's own word for the images that it takes. Raises: ConfigError."""
    said = getattr(network, "image_shape", None)
    if isinstance(said, tuple | list) and len(said) == 3 and all(isinstance(n, int) and n > 0 for n in said):
        return said[0], said[1], said[2]
    raise ConfigError(
        f"what images {source} takes is not known",
        key="image",
        why="the network has no image_shape of three whole numbers" if said is None else f"it says {said!r}",
        fix="give --image 3x224x224 (channels, height, width), or the network an attribute image_shape",
    )


def _width(network: MultiExitNetwork, shape: ImageShape, source: str) -> int:
    """How many numbers every exit gives. Raises: UnsupportedModel."""
    training = [module.training for module in network.stages]
    network.stages.eval()
    try:
        with torch.no_grad():
            outputs = run_exits(network, torch.zeros(1, *shape))
    except Exception as error:
        raise UnsupportedModel(
            f"{source} fails on an image of {' × '.join(map(str, shape))}: {_told(error, str(Path.cwd()))}",
            expected="stages that take what the stage before gives, as in edgeexit/models/protocol.py",
        ) from error
    finally:
        for module, was in zip(network.stages, training, strict=True):
            module.train(was)
    for k, output in enumerate(outputs):
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != 1:
            given = list(output.shape) if isinstance(output, Tensor) else _kind(output)
            raise UnsupportedModel(
                f"exit {k} of {source} gives {given}", expected="1 × classes, or 1 × 2 for value and spread"
            )
    widths = {output.shape[1] for output in outputs}
    if len(widths) != 1:
        raise UnsupportedModel(
            f"the exits of {source} give {', '.join(map(str, sorted(widths)))} numbers",
            expected="the same number at every exit",
        )
    return int(widths.pop())


def _told(error: Exception, here: str) -> str:
    """What went wrong and where in the user's own files."""
    places = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(here)]
    where = ""
    if places:
        where = f" ({Path(places[-1].filename).relative_to(here)}, line {places[-1].lineno})"
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refused(source: str, why: str, fix: str) -> ConfigError:
    return ConfigError(f"{source} gives no network", key="source", why=why, fix=fix)
