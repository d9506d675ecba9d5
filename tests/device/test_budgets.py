import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.budget import Budget, FixedBudget, LatestBudget, ScheduleBudget
from edgeexit.device.budgets import (
    LARGEST_BUDGET_BYTES,
    LOOK_EVERY_MS,
    BudgetInForce,
    FileBudget,
    parse_json_budget,
    read_budget,
)
from edgeexit.errors import ConfigError


class Watched:
    """A budget file with a clock that is turned by hand."""

    def __init__(self, path: Path, first: str) -> None:
        self.path = path
        self.now_ms = 0.0
        self.troubles: list[ConfigError] = []
        self.write(first)
        self.budget = FileBudget(path, trouble=self.troubles.append)
        self.budget.open()

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")

    def latency_ms(self) -> float:
        self.now_ms += LOOK_EVERY_MS
        return self.budget.budget(self.now_ms).latency_ms


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "budget.toml", "latency_ms = 80.0\n")


def test_a_change_of_the_file_is_in_force_at_the_next_look(watched: Watched) -> None:
    assert watched.latency_ms() == 80.0
    watched.write("latency_ms = 120.5\nuplink_bytes = 4000\n")
    assert watched.latency_ms() == 120.5
    assert watched.budget.budget(watched.now_ms).uplink_bytes == 4000


def test_changes_of_the_same_size_within_one_tick_of_the_file_system_are_seen(watched: Watched) -> None:
    times = (1_700_000_000_000_000_000, os.stat(watched.path).st_mtime_ns)
    for latency_ms in (81, 82, 83, 84):
        watched.write(f"latency_ms = {latency_ms}.0\n")
        os.utime(watched.path, ns=times)
        assert watched.latency_ms() == latency_ms


def test_a_file_that_does_not_change_is_not_read_again(watched: Watched) -> None:
    os.utime(watched.path, ns=(0, 1_700_000_000_000_000_000))
    assert watched.latency_ms() == 80.0
    inode = watched.path.stat().st_ino
    content = watched.path.read_bytes().replace(b"80.0", b"99.0")
    with watched.path.open("rb+") as file:
        file.write(content)
    os.utime(watched.path, ns=(0, 1_700_000_000_000_000_000))
    assert watched.path.stat().st_ino == inode
    assert watched.latency_ms() == 80.0


def test_the_file_is_looked_at_only_every_few_milliseconds(watched: Watched) -> None:
    watched.latency_ms()
    watched.write("latency_ms = 10.0\n")
    assert watched.budget.budget(watched.now_ms + LOOK_EVERY_MS / 2).latency_ms == 80.0
    assert watched.budget.budget(watched.now_ms + LOOK_EVERY_MS).latency_ms == 10.0


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "latency_ms = -3.0",
        "latency_ms = 0.0",
        "latency_ms = inf",
        "latency_ms = nan",
        "latency_ms = '80'",
        "latencyms = 80.0",
        "latency_ms = 80.0\nuplink_bytes = -1",
        "latency_ms = 80.0\nenergy_mj = nan",
        "not toml [",
        "#" * (LARGEST_BUDGET_BYTES + 1),
    ],
)
def test_bad_content_keeps_the_last_good_budget_and_is_told_once(watched: Watched, bad: str) -> None:
    watched.write("latency_ms = 70.0\n")
    assert watched.latency_ms() == 70.0
    watched.write(bad)
    assert [watched.latency_ms() for _ in range(5)] == [70.0] * 5
    assert len(watched.troubles) == 1
    assert watched.troubles[0].file == str(watched.path)
    watched.write("latency_ms = 60.0\n")
    assert watched.latency_ms() == 60.0


def test_a_file_that_is_gone_or_becomes_a_pipe_keeps_the_budget(watched: Watched) -> None:
    watched.path.unlink()
    assert watched.latency_ms() == 80.0
    os.mkfifo(watched.path)
    assert watched.latency_ms() == 80.0  # and does not hang
    assert len(watched.troubles) == 2
    watched.path.unlink()
    watched.write("latency_ms = 50.0\n")
    assert watched.latency_ms() == 50.0


@pytest.mark.parametrize("content", [None, "latency_ms = 0.0"])
def test_a_start_without_a_budget_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "budget.toml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError):
        FileBudget(path, trouble=lambda error: None).open()


def test_threads_that_ask_at_once_all_get_a_budget(watched: Watched) -> None:
    stop = threading.Event()
    wrong: list[float] = []

    def ask() -> None:
        at_ms = 0.0
        while not stop.is_set():
            at_ms += LOOK_EVERY_MS
            latency_ms = watched.budget.budget(at_ms).latency_ms
            if latency_ms not in (80.0, 90.0):
                wrong.append(latency_ms)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    replacement = watched.path.with_name("new")
    for index in range(100):
        replacement.write_text(f"latency_ms = {(80, 90)[index % 2]}.0\n", encoding="utf-8")
        replacement.replace(watched.path)
    stop.set()
    for asker in askers:
        asker.join(60)
    assert wrong == []
    assert watched.troubles == []


def test_json_is_read_where_the_name_says_so(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text('{"latency_ms": 33.5, "energy_mj": 12.0}', encoding="utf-8")
    assert read_budget(path) == Budget(33.5, energy_mj=12.0)


@given(content=st.binary(max_size=100))
def test_hostile_bytes_are_a_budget_or_one_typed_error(content: bytes) -> None:
    with suppress(ConfigError):
        assert parse_json_budget(content, file="message").latency_ms > 0.0


@pytest.mark.parametrize("content", [b"[" * 4000, b'{"latency_ms":1e999}', b" " * 5000 + b'{"latency_ms":1}'])
def test_deep_huge_and_long_messages_are_refused(content: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_json_budget(content, file="message")


@given(
    latency_ms=st.floats(min_value=1.0, max_value=1e5),
    captured_ms=st.floats(min_value=0.0, max_value=1e6),
    stop_ms=st.floats(min_value=0.0, max_value=1e6),
)
def test_a_device_that_stops_lets_no_frame_live_longer(
    latency_ms: float, captured_ms: float, stop_ms: float
) -> None:
    budgets = BudgetInForce(FixedBudget(Budget(latency_ms)))
    budgets.begin(captured_ms)
    assert budgets.budget(captured_ms).latency_ms == latency_ms
    budgets.stop_by(stop_ms)
    cut_ms = budgets.budget(captured_ms).latency_ms
    assert 0.0 < cut_ms <= latency_ms
    assert captured_ms + cut_ms <= max(stop_ms, captured_ms + 1.0) + 1e-6


def test_a_budget_file_asks_for_the_next_look_and_for_no_more(watched: Watched) -> None:
    watched.latency_ms()
    assert watched.budget.next_change_ms(watched.now_ms) == watched.now_ms + LOOK_EVERY_MS
    assert watched.budget.next_change_ms(watched.now_ms + 2.0) == watched.now_ms + LOOK_EVERY_MS
    long_after_ms = watched.now_ms + 1000.0
    assert watched.budget.next_change_ms(long_after_ms) > long_after_ms


def test_whatever_changes_the_budget_in_force_is_told() -> None:
    told: list[float] = []
    first, latest = LatestBudget(Budget(90.0)), LatestBudget(Budget(80.0))
    budgets = BudgetInForce(first)
    budgets.listen(lambda: told.append(budgets.budget(0.0).latency_ms))
    first.set(Budget(85.0))
    budgets.replace(latest)
    first.set(Budget(1.0))
    latest.set(Budget(70.0))
    budgets.begin(0.0)
    budgets.stop_by(30.0)
    assert told == [85.0, 80.0, 70.0, 30.0]
    budgets.replace(ScheduleBudget([(0.0, Budget(20.0)), (50.0, Budget(10.0))]))
    assert budgets.next_change_ms(0.0) == 50.0
    budgets.listen(None)
    latest.set(Budget(5.0))
    assert told[4:] == [20.0]
