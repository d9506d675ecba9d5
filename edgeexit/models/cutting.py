"""Somebody else's model, taken apart: its parts by name, and what an encoder of ours needs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from edgeexit.errors import CannotCut
from edgeexit.models.encoder_config import EncoderConfig

M = TypeVar("M", bound=nn.Module)

# Of the largest absolute value: what other kernels on other machines may differ by. A model that computes
# anything else differs by much more; on one machine the difference is 0, as tests show for each family.
AGREEMENT = 1e-4


@dataclass(frozen=True, slots=True)
class CutBackbone:
    """A model as an encoder of ours: what it is built from, and its weights.

    `weights` are named `embedding.…`, `blocks.<index>.…`, `norm.…` and, where it has one, `head.…`.
    `reference` computes with the model itself what the encoder must compute from a normalised image:
    logits, or without a head the tokens behind the last normalisation; None where that cannot be run.
    """

    config: EncoderConfig
    weights: dict[str, Tensor]
    reference: Callable[[Tensor], Tensor] | None


class Parts:
    """The parts of a model, each asked for by its path and by the kind that it must be of."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.name = type(model).__name__

    def refused(self, why: str, fix: str | None = None) -> CannotCut:
        """The error that says why this model cannot be cut."""
        return CannotCut(model=self.name, why=why, fix=fix)

    def module(self, path: str, kind: type[M]) -> M:
        """A module of just this kind. Raises: CannotCut."""
        found = self.anything(path)
        if not isinstance(found, kind):
            raise self.refused(f"{path} is {_kind(found)}, {kind.__name__} is known")
        return found

    def named(self, path: str, *names: str) -> nn.Module:
        """A module whose class has one of these names. Raises: CannotCut."""
        found = self.module(path, nn.Module)
        if type(found).__name__ not in names:
            raise self.refused(f"{path} is {_kind(found)}, {' or '.join(names)} is known")
        return found

    def optional(self, path: str, kind: type[M]) -> M | None:
        """A module of this kind, or None where there is an Identity or nothing. Raises: CannotCut."""
        found = self.anything(path)
        return None if found is None or isinstance(found, nn.Identity) else self.module(path, kind)

    def without(self, *paths: str) -> None:
        """These parts must do nothing. Raises: CannotCut."""
        for path in paths:
            found = self.anything(path)
            if found is not None and not isinstance(found, nn.Identity):
                raise self.refused(f"{path} is {_kind(found)}, which no encoder here has")

    def tensor(self, path: str) -> Tensor | None:
        """A parameter, or None where there is none. Raises: CannotCut."""
        found = self.anything(path)
        if found is not None and not isinstance(found, Tensor):
            raise self.refused(f"{path} is {_kind(found)}, no tensor")
        return found

    def needed(self, path: str) -> Tensor:
        """A parameter that must be there. Raises: CannotCut."""
        found = self.tensor(path)
        if found is None:
            raise self.refused(f"it has no {path}")
        return found

    def anything(self, path: str) -> object:
        """Whatever is there; None where nothing is."""
        found: object = self.model
        for name in path.split("."):
            if isinstance(found, nn.ModuleList | nn.Sequential):
                index = int(name)
                found = found[index] if index < len(found) else None
            else:
                found = getattr(found, name, None)
        return found

    def same(self, what: str, values: Iterable[object]) -> None:
        """All of these must be equal. Raises: CannotCut."""
        found = set(values)
        if len(found) > 1:
            raise self.refused(f"its {what} differ: {', '.join(sorted(map(str, found)))}")

    def patches(self, path: str) -> nn.Conv2d:
        """The projection of square patches that do not overlap. Raises: CannotCut."""
        conv = self.module(path, nn.Conv2d)
        side = conv.kernel_size[0]
        plain = (
            conv.kernel_size == conv.stride == (side, side)
            and conv.padding in ((0, 0), "valid")
            and conv.dilation == (1, 1)
            and conv.groups == 1
        )
        if not plain:
            raise self.refused(f"{path} overlaps its patches or is not square: {conv}")
        return conv

    def float_weights(self) -> None:
        """Its parameters must be float32. Raises: CannotCut."""
        kinds = {str(parameter.dtype) for parameter in self.model.parameters()} - {"torch.float32"}
        if kinds:
            raise self.refused(f"its weights are {', '.join(sorted(kinds))}", "call model.float() first")


class Weights:
    """The weights of an encoder, gathered module by module."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def put(self, name: str, tensor: Tensor) -> None:
        """One tensor, copied: the model it is of stays as it is."""
        self.found[name] = tensor.detach().to("cpu", copy=True)

    def take(self, name: str, module: nn.Linear | nn.LayerNorm | nn.Conv2d) -> None:
        """Weight and bias of a module."""
        self.put(f"{name}.weight", module.weight)
        if module.bias is not None:
            self.put(f"{name}.bias", module.bias)


def derives_from(model: nn.Module, module: str, name: str) -> bool:
    """Whether a model is of this class or one derived from it; its library need not be imported."""
    return any((each.__module__, each.__name__) == (module, name) for each in type(model).__mro__)


@torch.no_grad()
def check_same(cut: CutBackbone, compute: Callable[[Tensor], Tensor], model: str) -> None:
    """Run the model and what became of it on one image; both must say the same.

    `compute` takes an image from 0 to 1. Raises: CannotCut.
    """
    if cut.reference is None:
        return
    config = cut.config
    generator = torch.Generator().manual_seed(0)
    shape = (1, config.in_chans, config.image_height, config.image_width)
    image = torch.rand(shape, generator=generator)
    mean = torch.tensor(config.mean).reshape(1, -1, 1, 1)
    std = torch.tensor(config.std).reshape(1, -1, 1, 1)
    expected = cut.reference((image - mean) / std)
    got = compute(image)
    largest = max(1.0, float(expected.abs().max()))
    difference = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
    if not difference <= AGREEMENT * largest:
        raise CannotCut(
            model=model,
            why=f"cut into blocks it computes something else: outputs differ by {difference:.3g}",
            fix="attach exits to a model whose class and modules are those of the library",
        )


def _kind(found: object) -> str:
    return "missing" if found is None else type(found).__name__
