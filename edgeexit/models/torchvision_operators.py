"""A torchvision that timm and transformers can import beside torch's CPU build."""

from __future__ import annotations

import torch

# What torchvision describes while it is imported, without looking whether its compiled part was loaded.
_DESCRIBED = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def make_importable() -> None:
    """Let torchvision be imported where its compiled part cannot be loaded.

    The wheel that package indices serve for Linux is built against CUDA libraries; beside torch's CPU build
    its compiled operators are then missing, and its import ends in an error about the first of them. timm
    and transformers use only its Python part, so declaring those operators is enough; calling one still
    fails. Where torchvision is whole, or not installed, this does nothing.
    """
    try:
        import torchvision
    except ImportError:
        return
    except RuntimeError:
        for name, schema in _DESCRIBED.items():
            namespace, operator = name.split("::")
            if not hasattr(getattr(torch.ops, namespace), operator):
                torch.library.define(name, schema)
        import torchvision  # noqa: F401
