"""Log lines: readable by programs, and never a flood."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from edgeexit.errors import ConfigError
from edgeexit.gateway.log import LINES_PER_SECOND, KeyValueFormatter, close_log, open_log


def test_flood_of_one_event_is_held_back_and_counted(tmp_path: Path) -> None:
    now_ms = 0.0
    log, handler = open_log(tmp_path / "log", lambda: now_ms)
    for _ in range(1000):
        log.warning("refused", {"reason": "busy"})
    log.info("ready")
    now_ms = 1000.0
    log.warning("refused", {"reason": "busy"})
    close_log(handler)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in lines] == ["refused"] * LINES_PER_SECOND + ["ready", "refused"]
    assert lines[-1]["held_back"] == 1000 - LINES_PER_SECOND


def test_warnings_of_the_connection_go_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a device in the same process would leave it.
    monkeypatch.setattr(logging.getLogger("edgeexit"), "level", logging.INFO)
    _, handler = open_log(tmp_path / "log", lambda: 0.0)
    logging.getLogger("edgeexit.transport.mqtt").warning("dropping the connection: %s", "why")
    logging.getLogger("edgeexit.transport.mqtt").info("not this")
    close_log(handler)
    logging.getLogger("edgeexit.transport.mqtt").warning("not after the end")
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["event"] == "dropping the connection: why"


def test_values_cannot_break_a_line_into_others() -> None:
    record = logging.makeLogRecord({"msg": "refused", "levelname": "INFO"})
    record.edgeexit_fields = {"topic": 'a b="c"\nINFO forged', "ms": 1.23456789}
    line = KeyValueFormatter().format(record)
    assert "\n" not in line
    assert line.endswith("ms=1.23457")


def test_unwritable_log_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_log(tmp_path / "absent" / "log", lambda: 0.0)
    assert caught.value.key == "log_file"
