"""Small models of the libraries whose models exits are attached to, with random weights."""

from __future__ import annotations

from typing import Protocol

import pytest
import torch
from torch import nn

from edgeexit.models.torchvision_operators import make_importable

# Six blocks of sixteen channels on an image of 32 × 32: everything that matters, in no time.
TIMM = {
    "img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 6, "num_heads": 2, "num_classes": 7,
}  # fmt: skip
HUGGING_FACE = {
    "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2,
    "num_labels": 7,
}  # fmt: skip


class MakeModel(Protocol):
    """Makes a model of a library by its class and settings, with weights large enough to tell apart."""

    def __call__(self, name: str = ..., **settings: object) -> nn.Module: ...


def shaken(model: nn.Module) -> nn.Module:
    """Fresh weights are zero here and there, and would hide what is forgotten."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def timm_model() -> MakeModel:
    make_importable()
    from timm.models import deit, vision_transformer

    def make(name: str = "VisionTransformer", **settings: object) -> nn.Module:
        module = deit if name == "VisionTransformerDistilled" else vision_transformer
        made: nn.Module = getattr(module, name)(**(TIMM | settings))
        return shaken(made)

    return make


@pytest.fixture(scope="session")
def hugging_face_model() -> MakeModel:
    make_importable()
    import transformers

    def make(name: str = "ViTModel", **settings: object) -> nn.Module:
        family = name.split("For")[0].removesuffix("Model")
        config = getattr(transformers, f"{family}Config")(**(HUGGING_FACE | settings))
        made: nn.Module = getattr(transformers, name)(config)
        return shaken(made)

    return make
