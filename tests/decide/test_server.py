from __future__ import annotations

from edgeexit.decide.server import QUEUE_FRESH_MS, START_MS, ServerTimes


def test_before_any_reply_a_guess_is_made_and_named_as_such() -> None:
    server = ServerTimes()
    assert server.queue_ms is None
    assert server.compute_ms(0) is None
    assert server.at(0.0).service_ms(2) == (START_MS, START_MS, 2.0 * START_MS)


def test_queue_is_common_and_compute_is_per_boundary() -> None:
    server = ServerTimes()
    for _ in range(10):
        server.observe(0, 2.0, 20.0, 0.0)
        server.observe(3, 2.0, 5.0, 0.0)
    assert server.at(0.0).service_ms(0) == (22.0,) * 3
    assert server.at(0.0).service_ms(3) == (7.0,) * 3
    assert server.at(0.0).service_ms(1) == (22.0,) * 3, "never asked: the one before runs more stages"


def test_slow_tenth_is_seen() -> None:
    server = ServerTimes()
    for index in range(20):
        server.observe(0, 0.0, 50.0 if index % 7 == 0 else 5.0, 0.0)
    assert server.at(0.0).service_ms(0) == (5.0, 5.0, 50.0)


def test_quick_tenth_is_seen() -> None:
    """A queue that is mostly long is not always."""
    server = ServerTimes()
    for index in range(20):
        server.observe(0, 0.0 if index % 7 == 0 else 60.0, 5.0, 0.0)
    assert server.at(0.0).service_ms(0) == (5.0, 65.0, 65.0)


def test_what_was_known_does_not_change() -> None:
    server = ServerTimes()
    server.observe(0, 1.0, 5.0, 0.0)
    then = server.at(0.0)
    server.observe(0, 9.0, 90.0, 0.0)
    assert then.service_ms(0) == (6.0,) * 3


def test_a_queue_is_forgotten_after_a_while_but_not_how_long_computing_takes() -> None:
    server = ServerTimes()
    for _ in range(20):
        server.observe(0, 60.0, 5.0, 0.0)
    assert server.at(QUEUE_FRESH_MS).service_ms(0) == (65.0,) * 3
    later_ms = QUEUE_FRESH_MS + 1.0
    assert server.at(later_ms).service_ms(0) == (5.0,) * 3
    server.observe(0, 1.0, 5.0, later_ms)
    assert server.at(later_ms).service_ms(0) == (6.0,) * 3, "a queue that is gone does not come back"


def test_an_early_exit_is_no_sign_of_a_quick_gateway() -> None:
    server = ServerTimes()
    for _ in range(10):
        server.observe(0, 2.0, 60.0, 0.0)
    for _ in range(10):
        server.observe(0, 2.0, 15.0, 0.0, whole=False)
    assert server.at(0.0).service_ms(0) == (62.0,) * 3, "one stage of four in 15 ms"
    for _ in range(15):
        server.observe(0, 2.0, 80.0, 0.0, whole=False)
    assert server.compute_ms(0) == 80.0, "all stages would have taken longer still"


def test_before_any_whole_reply_an_early_exit_is_all_that_is_known() -> None:
    server = ServerTimes()
    server.observe(0, 0.0, 15.0, 0.0, whole=False)
    assert server.compute_ms(0) == 15.0
    server.observe(0, 0.0, 60.0, 0.0)
    server.observe(0, 0.0, 60.0, 0.0)
    assert server.compute_ms(0) == 60.0
