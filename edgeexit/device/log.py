"""The daemon's log: lines on stderr, in the form that their reader expects."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

# Syslog priorities, which journald reads from the beginning of a line.
_PRIORITIES = {logging.WARNING: "<4>", logging.ERROR: "<3>", logging.CRITICAL: "<2>"}


class _JournalFormatter(logging.Formatter):
    """Lines with their priority in front; journald adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        return _PRIORITIES.get(record.levelno, "<6>") + super().format(record)


def open_log(environment: Mapping[str, str]) -> None:
    """Send the log to stderr; whoever has set it up before us has the say."""
    root = logging.getLogger("edgeexit")
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environment:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
