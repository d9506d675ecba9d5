"""What tests of several rooms share: a tiny real bundle, and its recorded answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeexit.bundle import Bundle, open_bundle

TINY = Path(__file__).parent / "data" / "tiny_bundle"


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """Three stages of 8 by 8 grey images, float32 and int8, as shipped with the tests; never changed."""
    return open_bundle(TINY)
