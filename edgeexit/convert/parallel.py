"""Runs chains of interpreters side by side over a set."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import TypeVar

# Small enough that progress moves every second or so, large enough that handing them out costs nothing.
CHUNK = 32

_Chain = TypeVar("_Chain")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(
    count: int,
    open_one: Callable[[], _Chain],
    work: Callable[[_Chain, int], None],
    *,
    workers: int | None,
    tell: Callable[[int], None],
) -> None:
    """Call `work` for every index below `count`, each worker thread with a chain of its own.

    The runtime lets go of the interpreter lock while it computes, so threads are enough. `workers`
    None takes every core; `tell` learns, in the calling thread, how many are done.
    Raises: what `open_one` and `work` raise, the first one.
    """
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    wanted = max(1, min(workers or available_cores(), len(chunks)))
    idle: SimpleQueue[_Chain] = SimpleQueue()
    for _ in range(wanted):
        idle.put(open_one())

    def run(chunk: range) -> int:
        chain = idle.get()
        try:
            for index in chunk:
                work(chain, index)
        finally:
            idle.put(chain)
        return len(chunk)

    done = 0
    with ThreadPoolExecutor(wanted, thread_name_prefix="chain") as pool:
        futures = [pool.submit(run, chunk) for chunk in chunks]
        try:
            for future in as_completed(futures):
                done += future.result()
                tell(done)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
