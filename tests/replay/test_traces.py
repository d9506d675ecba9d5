from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.errors import TraceError
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.outages import Gaps, Outage, OutageKind
from edgeexit.replay.traces import LinkTrace, Uplink, read_trace, read_traces


def write(folder: Path, text: str, name: str = "link.trace") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_mahimahi_chances_are_packets(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "1\n1\n5\n10\n"))
    assert trace.period_ms == 10.0
    assert trace.mean_bps == pytest.approx(4 * 1500 * 8 * 100)
    assert trace.transfer_ms(0.0, 3000) == pytest.approx(1.0)
    # Chances that were not used are lost.
    assert trace.transfer_ms(1.0, 1500) == pytest.approx(5.0)
    assert trace.transfer_ms(5.0, 3000) == pytest.approx(10.5)


def test_mahimahi_millisecond_zero_is_the_end_of_the_period(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "0\n4\n8\n"))
    assert trace.transfer_ms(0.0, 1500) == pytest.approx(4.0)
    assert trace.transfer_ms(4.0, 3000) == pytest.approx(8.0)


def test_pensieve_rates_hold_since_the_line_before(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "3.0\t99\n4.0\t8\n6.0\t0\n7.0\t16\n"))
    assert trace.period_ms == pytest.approx(4000.0)
    assert trace.transfer_ms(0.0, 1000) == pytest.approx(1.0)
    assert trace.transfer_ms(1000.0, 2000) == pytest.approx(3001.0)


def test_sabre_periods_follow_each_other(tmp_path: Path) -> None:
    periods = [
        {"duration_ms": 100, "bandwidth_kbps": 8000, "latency_ms": 20},
        {"duration_ms": 300, "bandwidth_kbps": 800, "latency_ms": 30},
        {"duration_ms": 100, "bandwidth_kbps": 0, "latency_ms": 30},
    ]
    trace = read_trace(write(tmp_path, json.dumps(periods, indent=1)))
    assert trace.period_ms == 500.0
    assert trace.latency_ms == 30.0
    assert trace.transfer_ms(0.0, 1000) == pytest.approx(1.0)
    assert trace.transfer_ms(100.0, 1000) == pytest.approx(110.0)
    assert trace.transfer_ms(399.0, 1100) == pytest.approx(501.0)


def test_scale_multiplies_every_rate(tmp_path: Path) -> None:
    path = write(tmp_path, "0 8\n1 8\n")
    assert read_trace(path, scale=0.25).mean_bps == pytest.approx(read_trace(path).mean_bps / 4)
    assert read_trace(path, scale=0.25).scale == 0.25
    with pytest.raises(TraceError):
        read_trace(path, scale=0.0)


GOOD_PERIOD = '[{"duration_ms": 1, "bandwidth_kbps": 1, "latency_ms": 1}]'

BAD = [
    ("", None, "empty"),
    ("   \n \n", None, "empty"),
    ("hello there world\n", 1, "neither"),
    ("word\n", 1, "not a number"),
    ("1\n5\n4\n", 3, "comes after"),
    ("1\n-5\n", 2, "negative"),
    ("1\n2.5\n", 2, "whole"),
    ("1\n\n3\n", 2, "not a number"),
    ("0\n0\n", None, "no length"),
    ("1\nnan\n", 2, "nan"),
    ("1\n1_0\n", 2, "not a number"),
    ("0 1\n1 2\n0.5 3\n", 3, "lies before"),
    ("3 1\n3 2\n", None, "no time passes"),
    ("0 1\n1 -2\n", 2, "negative"),
    ("0 1\n1 inf\n", 2, "inf"),
    ("0 1\n1 NaN\n", 2, "nan"),
    ("0 1\n1 2 3\n", 2, "3 fields"),
    ("0 5\n1 0\n2 0\n", None, "zero throughout"),
    ("0 5\n", None, "no time passes"),
    ("0 1\n1 1e9\n", 2, "not believable"),
    ("0 1\n1e12 1\n", None, "days"),
    ("[]", None, "empty"),
    ("[", 1, "Expecting"),
    ("[1]", 1, "not an object"),
    ('[\n{"duration_ms": 1, "bandwidth_kbps": 1}]', 2, "latency_ms"),
    (GOOD_PERIOD[:-1] + ',\n{"duration_ms": 1, "bandwidth_kbps": -1, "latency_ms": 1}]', 2, "negative"),
    ('[{"duration_ms": 0, "bandwidth_kbps": 1, "latency_ms": 1}]', 1, "is 0"),
    ('[{"duration_ms": 1, "bandwidth_kbps": 0, "latency_ms": 1}]', None, "zero throughout"),
    ('[{"duration_ms": NaN, "bandwidth_kbps": 1, "latency_ms": 1}]', 1, "NaN"),
    ('[{"duration_ms": 1, "bandwidth_kbps": true, "latency_ms": 1}]', 1, "bandwidth_kbps"),
    ('[{"duration_ms": 1e999, "bandwidth_kbps": 1, "latency_ms": 1}]', 1, "inf"),
    ('[{"duration_ms": 1, "bandwidth_kbps": 1, "latency_ms": 1}\n', 1, "cut off"),
    ('[{"duration_ms": 1, "bandwidth_kbps": 1, "latency_ms": 1}] more', 1, "follows"),
    ("[" * 100_000, 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "why"), BAD)
def test_bad_files_are_named_with_their_line(tmp_path: Path, text: str, line: int | None, why: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert caught.value.file == str(path)
    assert caught.value.line == line
    assert why in str(caught.value)


def test_binary_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"1\n2\n\xff\xfe\x00")
    with pytest.raises(TraceError) as caught:
        read_trace(tmp_path / "binary")
    assert caught.value.line == 3
    with pytest.raises(TraceError):
        read_trace(tmp_path / "nowhere")
    with pytest.raises(TraceError):
        read_traces(tmp_path / "nowhere")


def test_an_oversized_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(TraceError, match="allowed"):
        read_trace(path)


@given(st.text(max_size=200) | st.from_regex(r"(\d{1,4}( \d{1,3})?\n){1,20}", fullmatch=True))
def test_any_text_is_a_trace_or_a_trace_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        trace = read_trace(path)
    except TraceError:
        return
    assert trace.transfer_ms(0.0, 1.0) > 0.0


rates = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 90_000)), min_size=1, max_size=30).filter(
    lambda steps: any(rate for _, rate in steps)
)


@given(rates)
def test_pensieve_and_sabre_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    at_ms, lines = 0, ["0 0"]
    for duration_ms, kbps in steps:
        at_ms += duration_ms
        lines.append(f"{at_ms / 1000.0} {kbps / 1000.0}")
    periods = [
        {"duration_ms": duration_ms, "bandwidth_kbps": kbps, "latency_ms": 1} for duration_ms, kbps in steps
    ]
    pensieve = read_trace(write(folder, "\n".join(lines), "same.txt"))
    sabre = read_trace(write(folder, json.dumps(periods), "same.json"))
    total = sum(duration_ms * kbps / 8.0 for duration_ms, kbps in steps)
    for trace in (pensieve, sabre):
        assert trace.period_ms == pytest.approx(at_ms)
        assert trace.carried_bytes(trace.period_ms) == pytest.approx(total, rel=1e-6)
        # The last byte of a period leaves at its end, or where the rate fell to zero for good.
        assert trace.transfer_ms(0.0, total * 0.999) <= trace.period_ms * (1 + 1e-9)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_mahimahi_carries_one_packet_a_line(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int]
) -> None:
    stamps = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    stamps[-1] = max(1, stamps[-1])
    text = "\n".join(str(stamp) for stamp in stamps)
    trace = read_trace(write(tmp_path_factory.getbasetemp(), text, "packets.up"))
    assert trace.period_ms == stamps[-1]
    assert trace.carried_bytes(trace.period_ms) == pytest.approx(1500.0 * len(stamps))
    for index, stamp in enumerate(stamps):
        if stamp > 0:
            # All chances up to a stamp, those of millisecond 0 come at the end of the period.
            before = sum(0 < each <= stamp for each in stamps[: index + 1])
            assert trace.carried_bytes(float(stamp)) >= 1500.0 * before - 1e-6


def test_a_folder_is_read_whatever_its_formats(tmp_path: Path) -> None:
    write(tmp_path, "1\n2\n", "b.up")
    (tmp_path / "more").mkdir()
    write(tmp_path / "more", "0 1\n1 1\n", "a")
    write(tmp_path, "# About\n", "README.md")
    assert [trace.name for trace in read_traces(tmp_path)] == ["b.up", "a"]


def steady(bytes_per_ms: float) -> LinkTrace:
    return LinkTrace("steady", Steps((0.0, 100.0), (100.0 * bytes_per_ms,)))


@given(st.lists(st.tuples(st.floats(0.0, 200.0), st.floats(1.0, 5000.0)), min_size=1, max_size=20))
def test_bytes_queue_in_order_and_the_link_is_never_exceeded(sends: list[tuple[float, float]]) -> None:
    trace = LinkTrace("link", Steps((0.0, 10.0, 25.0, 30.0), (500.0, 0.0, 900.0)))
    uplink = Uplink(trace)
    now_ms, ends, total = 0.0, [0.0], 0.0
    first_ms = sends[0][0]
    for pause_ms, size in sends:
        now_ms += pause_ms
        end_ms = uplink.transfer(now_ms, size)
        assert end_ms is not None
        assert end_ms >= ends[-1]
        assert end_ms > now_ms
        ends.append(end_ms)
        total += size
        carried = trace.carried_bytes(end_ms) - trace.carried_bytes(first_ms)
        assert total <= carried + 1e-3


def test_a_transfer_is_bounded_and_holds_the_link_until_then() -> None:
    uplink = Uplink(steady(1.0), time_out_ms=50.0)
    assert uplink.transfer(0.0, 100) is None
    assert uplink.transfer(60.0, 10) == pytest.approx(70.0)


def test_bytes_stand_still_while_the_link_is_gone() -> None:
    gaps = Gaps((Outage(10.0, 30.0, OutageKind.LINK), Outage(35.0, 40.0, OutageKind.LINK)), OutageKind.LINK)
    uplink = Uplink(steady(1.0), gaps=gaps)
    assert uplink.alone_ms(0.0, 10) == pytest.approx(10.0)
    assert uplink.alone_ms(5.0, 10) == pytest.approx(35.0)
    assert uplink.alone_ms(5.0, 11) == pytest.approx(41.0)
    assert uplink.alone_ms(15.0, 1) == pytest.approx(31.0)
    assert uplink.alone_ms(50.0, 1) == pytest.approx(51.0)


SHARED = Path(__file__).parents[2] / ".." / "shared" / "traces"


def test_public_traces_beside_the_checkout_are_read() -> None:
    if not SHARED.is_dir():
        return  # they belong to others and are not part of the project
    traces = read_traces(SHARED)
    assert all(1e5 < trace.mean_bps < 1e9 for trace in traces)


def test_a_second_that_is_repeated_counts_once(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "0 8\n1 8\n1 80\n2 8\n"))
    assert trace.mean_bps == pytest.approx(8e6)
