import threading
import time

from edgeexit.device.clock import PlayedClock, monotonic_ms, processor_ms


def test_clocks_never_go_back() -> None:
    for clock in (monotonic_ms, processor_ms, PlayedClock().now_ms):
        seen = [clock() for _ in range(1000)]
        assert seen == sorted(seen)


def test_a_played_board_does_not_count_the_time_that_others_take() -> None:
    clock = PlayedClock()
    before_ms = clock.now_ms()
    began_ms = monotonic_ms()
    threading.Event().wait(0.2)  # stands for another program on this processor
    waited_ms = monotonic_ms() - began_ms
    assert clock.now_ms() - before_ms < waited_ms / 2


def test_a_played_board_counts_what_it_computes_and_what_it_sleeps() -> None:
    clock = PlayedClock()
    before_ms = clock.now_ms()
    clock.sleep(0.05)
    slept_ms = clock.now_ms() - before_ms
    assert slept_ms >= 50.0
    worked_ms = time.thread_time_ns() / 1e6
    while time.thread_time_ns() / 1e6 - worked_ms < 20.0:
        pass
    assert clock.now_ms() - before_ms >= slept_ms + 20.0
