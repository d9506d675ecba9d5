"""What tests of several rooms share: a tiny real bundle, and its recorded answers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeexit.bundle import Bundle, open_bundle
from edgeexit.runner.table import TableRunner

TINY = Path(__file__).parent / "data" / "tiny_bundle"
PACKED = Path(__file__).parent / "data" / "packed_bundle"


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """Three stages of 8 by 8 grey images, float32 and int8, as shipped with the tests; never changed.

    `tests/data/make_tiny_bundle.py` made it. It needs a LiteRT runtime to run; see `tiny_table` else.
    """
    return open_bundle(TINY)


@pytest.fixture(scope="session")
def packed_bundle() -> Bundle:
    """The tiny bundle with packers at boundaries 1 and 2; never changed.

    `tests/data/make_packed_bundle.py` made it.
    """
    return open_bundle(PACKED)


@pytest.fixture(scope="session")
def tiny_table(tiny_bundle: Bundle) -> TableRunner:
    """The tiny bundle's golden answers behind the Runner port: sixteen samples, no runtime needed."""
    return TableRunner(tiny_bundle.manifest, tiny_bundle.golden().outputs)


@pytest.fixture(scope="session")
def hold_port() -> Iterator[Callable[[], int]]:
    """Gives ports of this machine that nobody else is given; whoever reuses addresses may listen there.

    A bound socket that never listens keeps a port from the kernel's choice, and refuses connections.
    """
    with ExitStack() as held:

        def hold() -> int:
            holder = held.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            port: int = holder.getsockname()[1]
            return port

        yield hold
