"""The daemon's log: lines on stderr, in the form that their reader expects."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Syslog priorities, which journald reads from the beginning of a line.
_PRIORITIES = {logging.WARNING: "<4>", logging.ERROR: "<3>", logging.CRITICAL: "<2>"}


class _JournalFormatter(logging.Formatter):
    """Lines with their priority in front; journald adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        return _PRIORITIES.get(record.levelno, "<6>") + super().format(record)


@contextmanager
def open_log(environment: Mapping[str, str]) -> Iterator[None]:
    """Send the log to stderr meanwhile; whoever has set it up before us has the say."""
    root = logging.getLogger("edgeexit")
    if root.handlers:
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environment:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        # A daemon within another program leaves nothing behind that would write to a stream long closed.
        root.removeHandler(handler)
        root.setLevel(level)
