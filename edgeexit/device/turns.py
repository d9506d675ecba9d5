"""How often the threads of the daemon take turns at the interpreter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The interpreter lets a thread go on for 5 ms while others wait for it, unless told otherwise. The deadline's
# timer wakes 2 ms before the deadline: a network thread that is kept busy, by the adverts of a thousand
# gateways for example, would make every answer late. A quarter of the guard leaves room for two such turns.
TURN_MS = 0.5


@contextmanager
def quick_turns() -> Iterator[None]:
    """Let no thread of this process keep the others waiting for longer than TURN_MS."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(TURN_MS / 1000.0)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
