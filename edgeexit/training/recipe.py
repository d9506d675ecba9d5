"""What a recipe says: which network, cut where, trained how, on which data, and how it becomes a bundle.

A recipe is a Python file with a function `recipe()` that gives a `Recipe`; copy one of `export/`.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeexit.bundle.manifest import CodecName, Task
from edgeexit.errors import ConfigError, EdgeExitError
from edgeexit.models.branch_config import BranchKind
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.training.augmentation import Augmentation
from edgeexit.training.batches import BatchSource
from edgeexit.training.data import Samples
from edgeexit.training.objective import Objective
from edgeexit.training.schedule import TrainingConfig

# As the converter names them.
VariantChoice = Literal["f32", "f16", "int8", "int8-tensor", "int8-static"]

Say = Callable[[str], None]
"""Takes one line for people."""


@dataclass(frozen=True, slots=True)
class NetworkWanted:
    """What a network is asked to be: what the data want, and what the user chose.

    `classes` is 0 for values, which lie about `value_offset`, `value_scale` wide. Where `after` or `branch`
    is None the recipe's own stand. `weights` is the file or folder of a backbone; `download` allows its
    library to fetch one.
    """

    task: Task = "classification"
    classes: int = 0
    value_offset: float = 0.0
    value_scale: float = 1.0
    seed: int = 0
    after: tuple[int, ...] | None = None
    branch: BranchKind | None = None
    weights: Path | None = None
    download: bool = False


@dataclass(frozen=True, slots=True)
class RecipeData:
    """What a network is trained on, calibrated on, and tested on; the three share no item.

    `train` makes batches out of `items` by a seed, a round of them being so many; `settings` are what shapes
    the batches beside items and seed, as dataclasses or JSON values, so that trained weights are found again.
    `classes` is empty for values, which lie about `value_offset`, `value_scale` wide. `skipped` images could
    not be read.
    """

    train: Callable[[int], BatchSource]
    items: Samples
    held_out: Samples
    test: Samples
    classes: tuple[str, ...]
    name: str
    settings: tuple[object, ...] = ()
    skipped: int = 0
    value_offset: float = 0.0
    value_scale: float = 1.0

    @property
    def task(self) -> Task:
        """What the targets are."""
        return "classification" if self.classes else "regression"


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the trained network becomes a bundle. None leaves a choice to the converter.

    `parity` and `agreement` are tolerances, as the converter's own words have them; `codec_samples` counts
    held-out images.
    """

    licence: str
    version: str = "1.0.0"
    variants: tuple[VariantChoice, ...] = ("f32", "int8")
    codecs: tuple[CodecName, ...] | None = None
    codec_samples: int | None = None
    parity: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One published bundle, or one of somebody's own.

    `network` builds what is asked for, cut at its exits; it takes images of `image_shape`. `data` opens the
    recipe's own data, from the directory given or from where they are installed, telling what it does.
    `tasks` are those that `network` can be asked for. `tiny` is the same, small enough for a minute.

    Shapes: image_shape (C, H, W).
    """

    name: str
    file: Path
    image_shape: tuple[int, int, int]
    network: Callable[[NetworkWanted], MultiExitNetwork]
    data: Callable[[Path | None, Say], RecipeData]
    training: TrainingConfig
    conversion: Conversion
    objective: Objective = field(default_factory=Objective)
    augmentation: Augmentation | None = None
    tasks: tuple[Task, ...] = ("classification", "regression")
    tiny: Recipe | None = None


def read_recipe(path: Path) -> Recipe:
    """Run a recipe's file and call its `recipe()`. Only run what you trust: it is a program.

    Raises: ConfigError when there is no such file, it fails, or it gives no recipe; MissingExtra and other
    errors of ours as they are.
    """

    def refused(why: str, fix: str) -> ConfigError:
        return ConfigError(f"{path} is no usable recipe", file=str(path), key="recipe", why=why, fix=fix)

    if path.suffix != ".py" or not path.is_file():
        raise refused("there is no such Python file", "name one, as they are in export/")
    # Its own name, so that two recipes do not meet; dataclasses look their module up by it.
    name = f"edgeexit_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        made = module.recipe() if callable(getattr(module, "recipe", None)) else None
    except EdgeExitError:
        raise
    except Exception as error:  # it is somebody's program: it may raise whatever there is
        places = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        line = getattr(error, "lineno", None) or (places[-1].lineno if places else None)
        where = "" if line is None else f"line {line}: "
        raise refused(f"{where}{type(error).__name__}: {error}", "correct it") from error
    if not isinstance(made, Recipe):
        raise refused(
            "it has no function recipe() that gives a Recipe", "see export/ for what one looks like"
        )
    return made
