from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.board.readings import Readings, Throttling
from edgeexit.decide.answer import Answer, Drop, OffloadOutcome, OffloadRecord, Place
from edgeexit.device.records import (
    LogRecord,
    RunEnded,
    RunStarted,
    decode_record,
    encode_record,
    read_records,
)
from edgeexit.errors import DataError

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(min_value=0, max_value=2**40)
words = st.text(max_size=20)

answers = st.builds(
    Answer,
    frame=counts,
    source=words,
    label=st.none() | counts,
    score=numbers,
    quality=numbers,
    output=st.lists(numbers, max_size=5).map(tuple),
    exit=counts,
    place=st.sampled_from(Place),
    captured_ms=numbers,
    latency_ms=numbers,
    deadline_ms=numbers,
    reason=words,
    stages_run=counts,
    offloads=counts,
    uplink_bytes=counts,
    link_up=st.none() | st.booleans(),
    decision_us=st.lists(numbers, max_size=5).map(tuple),
)
offloads = st.builds(
    OffloadRecord,
    frame=counts,
    boundary=counts,
    codec=words,
    uplink_bytes=counts,
    outcome=st.sampled_from(OffloadOutcome),
    reason=words,
    elapsed_ms=numbers,
    queue_ms=st.none() | numbers,
    compute_ms=st.none() | numbers,
    gateway=st.none() | words,
)
drops = st.builds(Drop, frame=counts, source=words, captured_ms=numbers, reason=words)
records = st.one_of(answers, offloads, drops)

READINGS = Readings(at_ms=1.0, temperature_c=61.5, throttling=Throttling(("thermal",), ("under-voltage",)))
STARTED = RunStarted(
    device="pi-1",
    bundle="vit",
    bundle_digest="ab" * 32,
    variants=("int8",),
    stage_ms=(1.5,),
    board="raspberry-pi-4",
    played_board=None,
    slowdown=None,
    policy="hedged-gain",
    started_ms=2.0,
    unix_s=1.0,
)
ENDED = RunEnded(answered=3, dropped=1, late=0, records_lost=0, ended_ms=9.0)


@given(record=records)
def test_a_record_survives_its_line(record: LogRecord) -> None:
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert decode_record(line) == record


@given(answer=answers, bad=st.sampled_from([float("nan"), float("inf")]))
def test_an_answer_with_logits_that_are_no_numbers_can_still_be_read(answer: Answer, bad: float) -> None:
    line = encode_record(replace(answer, output=(0.5, bad)))
    assert decode_record(line) == replace(answer, output=())


@pytest.mark.parametrize("record", [READINGS, STARTED, ENDED])
def test_records_about_the_run_survive_too(record: LogRecord) -> None:
    assert decode_record(encode_record(record)) == record


@given(line=st.binary(max_size=200))
def test_any_other_line_is_refused(line: bytes) -> None:
    with pytest.raises(DataError):
        decode_record(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"type":"answer"}', b'{"type":"unknown"}', b"[" * 10_000, b'{"type":["drop"]}', b"\xff"],
)
def test_a_broken_line_is_refused(line: bytes) -> None:
    with pytest.raises(DataError):
        decode_record(line)


def test_a_file_reads_in_order_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    whole = encode_record(STARTED) + encode_record(READINGS) + encode_record(ENDED)
    for cut in range(len(whole) - len(encode_record(ENDED)) + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert list(read_records(path)) == [STARTED, READINGS]
    path.write_bytes(whole)
    assert list(read_records(path)) == [STARTED, READINGS, ENDED]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(encode_record(STARTED) + b'{"type":"answ\n' + encode_record(ENDED))
    with pytest.raises(DataError, match=r"results\.jsonl:2"):
        list(read_records(path))


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        list(read_records(tmp_path / "none.jsonl"))
