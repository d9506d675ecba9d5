from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from edgeexit.device.log import open_log


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The project's logger without handlers of other tests."""
    logger = logging.getLogger("edgeexit")
    handlers, level = list(logger.handlers), logger.level
    logger.handlers.clear()
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_nothing_stays_after_the_log_is_closed(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    level = root.level
    with open_log({}):
        logging.getLogger("edgeexit.device.x").warning("something happened")
    assert stream.getvalue().endswith(" WARNING something happened\n")
    assert root.handlers == []
    assert root.level == level


def test_lines_carry_their_priority_for_the_journal(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with open_log({"JOURNAL_STREAM": "8:1"}):
        logging.getLogger("edgeexit.device.x").warning("hot")
        logging.getLogger("edgeexit.device.x").info("well")
    assert stream.getvalue() == "<4>hot\n<6>well\n"


def test_who_has_set_the_log_up_before_keeps_it(root: logging.Logger) -> None:
    mine = logging.NullHandler()
    root.addHandler(mine)
    with open_log({}):
        assert root.handlers == [mine]
    assert root.handlers == [mine]
