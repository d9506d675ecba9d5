import pytest

from edgeexit.board.files import board_file, board_names
from edgeexit.board.profile import parse_profile, read_profile
from edgeexit.errors import ConfigError, DeviceError


def test_the_four_boards_are_shipped() -> None:
    assert set(board_names()) >= {"generic-linux", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"}


@pytest.mark.parametrize("name", board_names())
def test_every_shipped_profile_reads_and_names_its_sources(name: str) -> None:
    profile = read_profile(name)
    assert profile.name == name
    assert all(time.source and time.time_ms > 0 for time in profile.times)
    assert profile.runtime.order[0] == "ai-edge-litert"
    assert profile.runtime.threads >= 1


@pytest.mark.parametrize("name", board_names())
def test_the_slowdown_follows_from_the_times_beside_it(name: str) -> None:
    profile = read_profile(name)
    slowdown = profile.slowdown
    if slowdown is None:
        return
    assert slowdown.factor == pytest.approx(slowdown.board_ms / slowdown.reference_ms, rel=0.005)
    published = [
        time.time_ms
        for time in profile.times
        if (time.network, time.precision) == (slowdown.network, slowdown.precision)
    ]
    assert published == [slowdown.board_ms]


def test_a_pi_4_is_slower_than_a_pi_5() -> None:
    four, five = read_profile("raspberry-pi-4").slowdown, read_profile("raspberry-pi-5").slowdown
    assert four is not None
    assert five is not None
    assert four.factor > five.factor > 1


def test_a_misspelt_key_names_file_and_key_and_the_nearest_known_one() -> None:
    content = b'name = "x"\ntitle = "X"\n[runtime]\norder = []\n[sensors]\nthermal_zone = ["a"]\n'
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, file="x.toml", name="x")
    assert (caught.value.file, caught.value.key) == ("x.toml", "sensors.thermal_zone")
    assert caught.value.fix == "did you mean sensors.thermal_zones?"


def test_a_misspelt_key_in_a_list_of_tables_is_found() -> None:
    content = b'name="x"\ntitle="X"\n[runtime]\norder=[]\n[[times]]\ntime=3.0\n'
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, file="x.toml", name="x")
    assert caught.value.key == "times[0].time"


def test_a_value_of_the_wrong_type_names_its_key() -> None:
    content = b'name="x"\ntitle="X"\n[runtime]\norder=[]\nthreads="two"\n'
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, file="x.toml", name="x")
    assert caught.value.key == "runtime.threads"
    assert "int" in (caught.value.why or "")


@pytest.mark.parametrize(
    "content", [b"\xff", b"name = ", b"a=1\na=2", b"x=" + b"[" * 5000, b"#" * (1 << 20) + b"\n"]
)
def test_what_is_not_toml_is_one_clear_error(content: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, file="x.toml", name="x")
    assert caught.value.file == "x.toml"


def test_a_factor_below_one_is_refused() -> None:
    whole = board_file("profiles/raspberry-pi-4.toml").read_bytes()
    with pytest.raises(ConfigError) as caught:
        parse_profile(whole.replace(b"factor = 29.2", b"factor = 0.5"), file="f", name="raspberry-pi-4")
    assert caught.value.key == "slowdown.factor"


def test_what_a_radio_takes_is_read_and_is_absent_where_nobody_measured_it() -> None:
    whole = board_file("profiles/raspberry-pi-4.toml").read_bytes()
    assert read_profile("raspberry-pi-4").radio is None
    table = b'[radio]\nsending_mj_per_byte = 0.004\nsource = "a meter"\n'
    radio = parse_profile(whole + table, file="f", name="raspberry-pi-4").radio
    assert radio is not None
    assert radio.sending_mj_per_byte == 0.004
    for wrong in (b"-0.1", b"inf", b"nan"):
        with pytest.raises(ConfigError) as caught:
            parse_profile(whole + table.replace(b"0.004", wrong), file="f", name="raspberry-pi-4")
        assert caught.value.key == "radio.sending_mj_per_byte"
    with pytest.raises(ConfigError):
        parse_profile(whole + b"[radio]\nsending_mj_per_byte = 0.1\n", file="f", name="raspberry-pi-4")


def test_an_unknown_board_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        read_profile("raspberry-pi4")
    assert caught.value.fix == "did you mean raspberry-pi-4?"


@pytest.mark.parametrize("name", ["../setup", "profiles/../../setup.py", "", "profiles//x", "/etc/passwd"])
def test_a_name_that_leaves_the_board_data_is_refused(name: str) -> None:
    with pytest.raises((DeviceError, ConfigError)):
        board_file(name)
    with pytest.raises(ConfigError):
        read_profile(name)
