import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.board import sysfs
from edgeexit.board.readings import Throttling

TREES = Path(__file__).with_name("trees")
PI_4, PI_5, JETSON = TREES / "raspberry-pi-4", TREES / "raspberry-pi-5", TREES / "jetson-orin-nano"


def write(root: Path, relative: str, content: bytes) -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_temperature_is_that_of_the_named_zone() -> None:
    assert sysfs.temperature_c(PI_5, ("cpu-thermal",)) == pytest.approx(47.4)
    assert sysfs.temperature_c(JETSON, ("cpu-thermal",)) == pytest.approx(48.5)


def test_temperature_is_the_hottest_zone_where_none_is_named() -> None:
    assert sysfs.temperature_c(JETSON, ()) == pytest.approx(48.937)


def test_a_zone_that_is_powered_down_is_left_out() -> None:
    assert sysfs.temperature_c(JETSON, ("cv0-thermal",)) is None
    assert sysfs.temperature_c(JETSON, ("cv0-thermal", "soc0-thermal")) == pytest.approx(46.875)


@pytest.mark.parametrize("broken", [b"", b"-256000\n", b"999999\n", b"hot\n", b"\xff\xfe", b"4" * 5000])
def test_a_broken_sensor_is_none_not_a_number(tmp_path: Path, broken: bytes) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", b"cpu-thermal\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", broken)
    assert sysfs.temperature_c(tmp_path, ()) is None


@given(content=st.binary(max_size=300))
def test_reading_a_number_never_raises(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sensor") / "value"
    path.write_bytes(content)
    number = sysfs.read_number(path)
    assert number is None or number == int(number)


def test_frequency_is_that_of_the_fastest_core() -> None:
    assert sysfs.cpu_hz(PI_4) == 1.5e9
    assert sysfs.cpu_hz(JETSON) == 1.5104e9


def test_power_is_volts_times_amperes_of_the_rail() -> None:
    assert sysfs.power_w(JETSON, ("VDD_IN",)) == pytest.approx(4.952 * 1.128)


def test_power_of_several_rails_is_their_sum() -> None:
    expected = 4.944 * 0.184 + 4.944 * 0.296
    assert sysfs.power_w(JETSON, ("VDD_CPU_GPU_CV", "VDD_SOC")) == pytest.approx(expected)


def test_half_a_sum_of_rails_is_unknown() -> None:
    assert sysfs.power_w(JETSON, ("VDD_IN", "VDD_GONE")) is None


def test_cooling_says_throttled_only_while_the_processor_is_held_back(tmp_path: Path) -> None:
    assert sysfs.thermal_throttling(JETSON) == Throttling(now=(), since_boot=())
    write(tmp_path, "sys/class/thermal/cooling_device0/type", b"thermal-cpufreq-0\n")
    write(tmp_path, "sys/class/thermal/cooling_device0/cur_state", b"3\n")
    assert sysfs.thermal_throttling(tmp_path) == Throttling(now=("thermal",), since_boot=())


def test_a_fan_at_work_is_not_throttling() -> None:
    assert sysfs.thermal_throttling(PI_5) is None


def test_a_machine_without_sensors_reads_none_everywhere(tmp_path: Path) -> None:
    assert sysfs.temperature_c(tmp_path, ()) is None
    assert sysfs.cpu_hz(tmp_path) is None
    assert sysfs.power_w(tmp_path, ("VDD_IN",)) is None
    assert sysfs.power_w(tmp_path, ()) is None
    assert sysfs.thermal_throttling(tmp_path) is None


def test_a_tree_of_garbage_reads_none_everywhere(tmp_path: Path) -> None:
    noise = random.Random(1)
    for relative in (
        "sys/class/thermal/thermal_zone0/type",
        "sys/class/thermal/thermal_zone0/temp",
        "sys/class/thermal/cooling_device0/type",
        "sys/class/hwmon/hwmon0/in1_label",
        "sys/class/hwmon/hwmon0/in1_input",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    ):
        write(tmp_path, relative, noise.randbytes(100))
    assert sysfs.temperature_c(tmp_path, ()) is None
    assert sysfs.cpu_hz(tmp_path) is None
    assert sysfs.power_w(tmp_path, ("VDD_IN",)) is None
    assert sysfs.thermal_throttling(tmp_path) is None
