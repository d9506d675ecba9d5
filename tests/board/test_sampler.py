import threading
from pathlib import Path

import pytest

from edgeexit.board.host import Host
from edgeexit.board.identify import identify
from edgeexit.board.profile import read_profile
from edgeexit.board.readings import Readings
from edgeexit.board.sampler import BoardSampler, look

TREES = Path(__file__).with_name("trees")


def test_a_jetson_shows_heat_frequency_power_and_throttling() -> None:
    root = TREES / "jetson-orin-nano"
    readings = look(identify(root).sensors, Host(), at_ms=5.0, root=root)
    assert readings.at_ms == 5.0
    assert readings.temperature_c == pytest.approx(48.937)
    assert readings.cpu_hz == 1.5104e9
    assert readings.power_w == pytest.approx(5.586, abs=0.001)
    assert readings.throttling is not None
    assert readings.throttling.now == ()


def test_the_first_look_does_not_know_how_busy_the_processor_was() -> None:
    host = Host()
    assert host.read().cpu_fraction is None
    second = host.read().cpu_fraction
    assert second is not None
    assert 0.0 <= second <= 1.0


def test_memory_is_that_of_this_machine_and_process() -> None:
    readings = look(read_profile("generic-linux").sensors, Host(), at_ms=0.0)
    assert readings.memory_total_bytes is not None
    assert readings.memory_available_bytes is not None
    assert readings.resident_bytes is not None
    assert 0 < readings.resident_bytes < readings.memory_total_bytes
    assert 0 < readings.memory_available_bytes <= readings.memory_total_bytes


def test_the_sampler_looks_at_once_and_then_on_its_timer() -> None:
    seen: list[Readings] = []
    thrice = threading.Event()

    def keep(readings: Readings) -> None:
        seen.append(readings)
        if len(seen) == 3:
            thrice.set()

    ticks = iter(range(1000))
    with BoardSampler(0.001, lambda: float(next(ticks)), on_reading=keep) as sampler:
        assert sampler.latest is not None
        assert thrice.wait(60)
    assert [readings.at_ms for readings in seen[:3]] == [0.0, 1.0, 2.0]
    assert not any(thread.name == "board-sampler" for thread in threading.enumerate())
