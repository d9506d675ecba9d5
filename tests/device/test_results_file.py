from pathlib import Path

import pytest

from edgeexit.decide.answer import Drop
from edgeexit.device.records import LogRecord, encode_record, read_records
from edgeexit.device.results_file import ResultsFile
from edgeexit.errors import DeviceError


def drop(number: int) -> Drop:
    return Drop(frame=number, source="a.png", captured_ms=0.0, reason="replaced")


def opened(path: Path, *, cap_bytes: int = 1 << 20) -> ResultsFile:
    def fail(error: DeviceError) -> None:
        raise AssertionError(error)

    file = ResultsFile(path, cap_bytes=cap_bytes, trouble=fail)
    file.open()
    return file


def test_records_are_on_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    file = opened(path)
    file.write([drop(0), drop(1)])
    assert list(read_records(path)) == [drop(0), drop(1)]
    file.close()


def test_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for number in (0, 1):
        file = opened(path)
        file.write([drop(number)])
        file.close()
    assert list(read_records(path)) == [drop(0), drop(1)]


@pytest.mark.parametrize("torn_bytes", [1, 5, 20])
def test_a_line_torn_by_a_power_cut_is_taken_off(tmp_path: Path, torn_bytes: int) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(encode_record(drop(0)) + encode_record(drop(1))[:torn_bytes])
    file = opened(path)
    file.write([drop(2)])
    file.close()
    assert list(read_records(path)) == [drop(0), drop(2)]


def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(b"dear diary")
    with pytest.raises(DeviceError, match=r"diary\.txt"):
        opened(path)
    assert path.read_bytes() == b"dear diary"


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError) as caught:
        opened(tmp_path / "file" / "results.jsonl")
    assert caught.value.fix is not None


def test_a_large_file_is_kept_once_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    line_bytes = len(encode_record(drop(0)))
    file = opened(path, cap_bytes=3 * line_bytes)
    for number in range(8):
        file.write([drop(number)])
    file.close()
    older: list[LogRecord] = list(read_records(tmp_path / "results.jsonl.1"))
    assert older == [drop(3), drop(4), drop(5)]
    assert list(read_records(path)) == [drop(6), drop(7)]


def test_a_full_disk_costs_records_is_told_once_and_heals(tmp_path: Path) -> None:
    told: list[DeviceError] = []
    path = tmp_path / "results.jsonl"
    file = ResultsFile(path, cap_bytes=1 << 20, trouble=told.append)
    file.open()
    file.write([drop(0)])
    file.close()
    path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")  # every write to it fails as on a full disk
    file.write([drop(1)])
    file.write([drop(2)])
    assert len(told) == 1
    assert "results.jsonl" in str(told[0])
    path.unlink()
    (tmp_path / "kept").rename(path)
    file.write([drop(3)])
    file.close()
    assert list(read_records(path)) == [drop(0), drop(3)]
