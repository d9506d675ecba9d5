"""Where the patches of an image lie among its tokens."""

from __future__ import annotations

from math import isqrt

from edgeexit.errors import UnsupportedModel

# Class, distillation and register tokens: DINOv2 with registers has five before its patches.
MOST_PREFIX_TOKENS = 5


def square_grid(tokens: int) -> tuple[int, int]:
    """How many prefix tokens there are, and the patches along one side of a square image.

    Raises: UnsupportedModel when no square lies below so many tokens.
    """
    for prefix in range(MOST_PREFIX_TOKENS + 1):
        side = isqrt(max(0, tokens - prefix))
        if side > 1 and prefix + side * side == tokens:
            return prefix, side
    raise UnsupportedModel(
        f"{tokens} tokens are no square of patches",
        expected="prefix tokens and the patches of a square image",
    )
