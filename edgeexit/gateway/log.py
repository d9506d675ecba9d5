"""Log lines of the gateway: one event a line, as key=value or JSON, never more than a few a second each."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from edgeexit.errors import ConfigError

LOGGER_NAME = "edgeexit.gateway"
# Warnings of the other rooms, the connection's above all, go the same way.
ROOT_NAME = "edgeexit"
# Lines of one event in any one second; a flood of bad requests must not become a flood of lines.
LINES_PER_SECOND = 5
# A gateway left alone for years fills two files of this size and no more.
LOG_FILE_BYTES = 10 * 2**20

Value = str | int | float | bool | None
Fields = Mapping[str, Value]
NO_FIELDS: Fields = {}
_FIELDS_ATTRIBUTE = "edgeexit_fields"


@dataclass(slots=True)
class _Window:
    """Lines of one event in the running second, and those held back."""

    started_ms: float
    lines: int = 0
    held_back: int = 0


class EventLog:
    """Writes events to a standard logger, at most `LINES_PER_SECOND` of each kind.

    Held-back lines are counted on the next line of the same event. Event names are constants of the
    program, so that the table of windows stays as small as their number.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def info(self, event: str, fields: Fields = NO_FIELDS) -> None:
        """Something usual happened."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, fields: Fields = NO_FIELDS) -> None:
        """Something is wrong that the gateway can live with."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, fields: Fields = NO_FIELDS) -> None:
        """Something failed that should not."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: Fields) -> None:
        now_ms = self._clock()
        window = self._windows.get(event)
        held_back = 0
        if window is None or now_ms - window.started_ms >= 1000.0:
            held_back = 0 if window is None else window.held_back
            window = self._windows[event] = _Window(now_ms)
        if window.lines >= LINES_PER_SECOND:
            window.held_back += 1
            return
        window.lines += 1
        shown = dict(fields)
        if held_back:
            shown["held_back"] = held_back
        self._logger.log(level, "%s", event, extra={_FIELDS_ATTRIBUTE: shown})


class KeyValueFormatter(logging.Formatter):
    """`time level event key=value …`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        pairs = [f"{key}={_plain(value)}" for key, value in _fields(record).items()]
        head = f"{self.formatTime(record)} {record.levelname.lower()} {record.getMessage()}"
        return " ".join([head, *pairs])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        head: dict[str, Value] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        return json.dumps({**head, **_fields(record)}, ensure_ascii=False)


def open_log(file: Path | None, clock: Callable[[], float]) -> tuple[EventLog, logging.Handler]:
    """A log to a file, or to stderr; the handler is for `close_log`.

    JSON where nobody reads along: in files and where stderr is no terminal.
    Raises: ConfigError when the file cannot be written.
    """
    handler: logging.Handler
    try:
        if file is None:
            handler = logging.StreamHandler(sys.stderr)
        else:
            handler = RotatingFileHandler(file, maxBytes=LOG_FILE_BYTES, backupCount=1, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"log file {file} cannot be written", key="log_file", why=error.strerror, fix="name another file"
        ) from error
    for_people = file is None and sys.stderr.isatty()
    handler.setFormatter(KeyValueFormatter() if for_people else JsonFormatter())
    handler.addFilter(_is_ours_or_serious)
    root, logger = logging.getLogger(ROOT_NAME), logging.getLogger(LOGGER_NAME)
    root.addHandler(handler)
    root.propagate = False
    logger.setLevel(logging.INFO)
    return EventLog(logger, clock), handler


def close_log(handler: logging.Handler) -> None:
    """Flush and take the handler off again."""
    root = logging.getLogger(ROOT_NAME)
    root.removeHandler(handler)
    root.propagate = True
    handler.close()


def _is_ours_or_serious(record: logging.LogRecord) -> bool:
    """The gateway's own events, and what other rooms warn of, whatever level others have set."""
    return record.name == LOGGER_NAME or record.levelno >= logging.WARNING


def _fields(record: logging.LogRecord) -> dict[str, Value]:
    """The event's own fields; none on a foreign record."""
    fields: dict[str, Value] = getattr(record, _FIELDS_ATTRIBUTE, {})
    return fields


def _plain(value: Value) -> str:
    """A value as people read it, quoted where it would break the line into other pairs."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return json.dumps(text) if any(c in text for c in ' "=\n') or not text else text
