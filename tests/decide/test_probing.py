from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.probing import PAYLOAD_PROBE_BYTES, PING_BYTES, ProbeSchedule


def test_nothing_is_due_before_a_connection() -> None:
    assert ProbeSchedule().ask(1e9, closed=False) is None


def test_a_ping_comes_first_then_the_goodput() -> None:
    probes = ProbeSchedule()
    probes.at_once(0.0)
    assert probes.ask(0.0, closed=False) == PING_BYTES
    assert probes.ask(1.0, closed=False) is None
    probes.returned(PING_BYTES, 20.0)
    assert probes.ask(20.0, closed=False) == PAYLOAD_PROBE_BYTES


def test_a_closed_link_is_only_pinged() -> None:
    probes = ProbeSchedule()
    probes.at_once(0.0)
    probes.returned(PING_BYTES, 0.0)
    assert probes.ask(0.0, closed=True) == PING_BYTES


def test_an_unused_link_costs_less_and_less() -> None:
    probes = ProbeSchedule()
    probes.at_once(0.0)
    sent_bytes = 0
    for second in range(600):
        for step in range(10):
            now_ms = 1000.0 * second + 100.0 * step
            wanted = probes.ask(now_ms, closed=False)
            if wanted is not None:
                sent_bytes += wanted
                probes.returned(wanted, now_ms + 30.0)
    assert 20 * PAYLOAD_PROBE_BYTES < sent_bytes < 40 * PAYLOAD_PROBE_BYTES


def test_payloads_take_the_place_of_probes() -> None:
    probes = ProbeSchedule()
    probes.at_once(0.0)
    for frame in range(1000):
        now_ms = 300.0 * frame
        probes.payload_used(now_ms)
        assert probes.ask(now_ms + 299.0, closed=False) is None


def test_a_probe_whose_end_was_never_told_does_not_stop_all_others() -> None:
    probes = ProbeSchedule()
    probes.at_once(0.0)
    assert probes.ask(0.0, closed=False) is not None
    assert probes.ask(14_000.0, closed=False) is None
    assert probes.ask(16_000.0, closed=False) is not None


@given(st.lists(st.tuples(st.sampled_from("rfuo"), st.floats(0.0, 60_000.0), st.booleans()), max_size=60))
def test_whatever_happens_probing_never_stops_for_good(events: list[tuple[str, float, bool]]) -> None:
    probes = ProbeSchedule()
    now_ms = 0.0
    probes.at_once(now_ms)
    for kind, step_ms, closed in events:
        now_ms += step_ms
        wanted = probes.ask(now_ms, closed=closed)
        if kind == "r":
            probes.returned(wanted or PING_BYTES, now_ms)
        elif kind == "f":
            probes.failed(now_ms)
        elif kind == "u":
            probes.payload_used(now_ms)
        else:
            probes.at_once(now_ms)
    assert probes.ask(now_ms + 60_000.0, closed=False) is not None
