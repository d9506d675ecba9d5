"""Packers of boundaries that hold more than one tensor of tokens: one tensor is packed, the others go along.

Maps (1, C, H, W) are packed as the tokens that they are, one for each place.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeexit.bundle.manifest import TensorSpec
from edgeexit.models.packers import PackerModules
from edgeexit.models.protocol import State


def packed_tensor(specs: Sequence[TensorSpec]) -> TensorSpec | None:
    """The largest tensor of a boundary that is tokens or a map; None where there is none."""
    fitting = [spec for spec in specs if spec.dtype == "float32" and len(spec.shape) in (3, 4)]
    return max(fitting, key=lambda spec: spec.size, default=None)


def token_count(spec: TensorSpec) -> int:
    """How many tokens there are, or places of a map."""
    return spec.shape[1] if len(spec.shape) == 3 else spec.shape[2] * spec.shape[3]


def with_others(packer: PackerModules, packed: TensorSpec, specs: Sequence[TensorSpec]) -> PackerModules:
    """The packer of one tensor of tokens as one of a whole boundary; itself where that is all it holds."""
    others = tuple(spec.name for spec in specs if spec.name != packed.name)
    side = packed.shape[2:] if len(packed.shape) == 4 else ()
    if not others and not side:
        return packer
    return PackerModules(
        name=packer.name,
        boundary=packer.boundary,
        codecs=packer.codecs,
        pack=_Pack(packer.pack, packer.name, packed.name, others, side),
        unpack=_Unpack(packer.unpack, packer.name, packed.name, others, side),
    )


class _Half(nn.Module):
    def __init__(
        self, half: nn.Module, packer: str, packed: str, others: tuple[str, ...], side: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.inner: nn.Module = half
        self.packed = packed
        self.side = side
        # Told apart by their names, so those that go along have names of their own.
        self.sent_names = {name: f"{packer}_{name}" for name in others}


class _Pack(_Half):
    # The arguments' names are the tensors', so they are data, not code.
    def forward(self, **state: Tensor) -> State:
        """Shapes: a map (1, C, H, W) becomes tokens (1, H · W, C) first."""
        tokens = state[self.packed]
        if self.side:
            tokens = tokens.flatten(2).transpose(1, 2)  # 1 C H W -> 1 HW C
        made: State = self.inner(**{self.packed: tokens})
        return made | {sent: state[name] for name, sent in self.sent_names.items()}


class _Unpack(_Half):
    def forward(self, **state: Tensor) -> State:
        """Shapes: as `_Pack`, the other way round."""
        along = {name: state[sent] for name, sent in self.sent_names.items()}
        own = {name: tensor for name, tensor in state.items() if name not in self.sent_names.values()}
        restored: State = self.inner(**own)
        if self.side:
            tokens = restored[self.packed]
            restored = {self.packed: tokens.transpose(1, 2).reshape(1, -1, *self.side)}  # 1 HW C -> 1 C H W
        return restored | along
