from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.board.host_name import host_id
from edgeexit.board.profile import Radio, read_profile
from edgeexit.device.config import DeviceConfig, load_config
from edgeexit.device.parts import sending_mj_per_byte
from edgeexit.errors import ConfigError

SOURCE = '[source]\nkind = "directory"\npath = "images"\n'


def write(folder: Path, text: str, name: str = "config.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> ConfigError:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.file == str(path)
    return caught.value


def test_little_has_to_be_said(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SOURCE))
    assert config.source.path == "images"
    assert config.bundle == "/var/lib/edgeexit/current"
    assert config.budget.latency_ms == 100.0
    assert config.broker is None
    assert config.device == host_id("device")


def test_all_can_be_said(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            """
            device = "porch-1"
            bundle = "bundles/vit"
            board = "raspberry-pi-5"
            threads = 2
            state = "state"
            readings_interval_s = 2.0
            [source]
            kind = "video"
            path = "door.avi"
            frame_rate_hz = 12.5
            loop = true
            [budget]
            kind = "schedule"
            period_ms = 2000.0
            steps = [{ start_ms = 0.0, latency_ms = 30.0 }, { start_ms = 1000.0, latency_ms = 90.0 }]
            [broker]
            url = "mqtts://broker.local"
            user = "porch-1"
            password_file = "password"
            [offload]
            enabled = false
            [policy]
            name = "anytime-local"
            [play]
            board = "raspberry-pi-4"
            [results]
            path = "results.jsonl"
            cap_bytes = 1000000
            """,
        )
    )
    assert config.budget.steps[1].latency_ms == 90.0
    assert config.broker is not None
    assert config.play.board == "raspberry-pi-4"
    assert not config.offload.enabled


def test_a_misspelt_key_names_file_key_and_the_nearest_one(tmp_path: Path) -> None:
    error = refused(tmp_path, SOURCE + "frame_rate = 10.0\n")
    assert error.key == "source.frame_rate"
    assert error.fix == "did you mean source.frame_rate_hz?"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "source"),
        (SOURCE + "frame_rate_hz = 0.0\n", "source.frame_rate_hz"),
        (SOURCE + "frame_rate_hz = nan\n", "source.frame_rate_hz"),
        (SOURCE + "loop = 1\n", "source.loop"),
        (SOURCE + '[budget]\nkind = "schedule"\n', "budget.steps"),
        (SOURCE + '[budget]\nkind = "file"\n', "budget.path"),
        (SOURCE + "[budget]\n", "budget.latency_ms"),
        (SOURCE + '[budget]\nkind = "mqtt"\nlatency_ms = 5.0\n', "broker.url"),
        (SOURCE + "[broker]\n", "broker.url"),
        ("threads = 0\n" + SOURCE, "threads"),
        ('device = "Porch 1"\n' + SOURCE, "device"),
        (SOURCE + '[play]\nfactor = 3.0\nboard = "raspberry-pi-4"\n', "play.factor"),
        (SOURCE + "[play]\nfactor = 0.5\n", "play.factor"),
        (SOURCE + '[policy]\nname = "first-exit"\nepsilon = 0.05\n', "policy.epsilon"),
        (SOURCE + '[policy]\nname = "best"\n', "policy.name"),
        (SOURCE + "[policy]\naudit_fraction = 1.5\n", "policy.audit_fraction"),
        (SOURCE + '[policy]\nguarantee = "luck"\n', "policy.guarantee"),
        (SOURCE + "[offload]\nbyte_price = -1.0\n", "offload.byte_price"),
        (SOURCE + "[offload]\nbytes_per_s = 0.0\n", "offload.bytes_per_s"),
        (SOURCE + "[policy]\npower_mw = -5.0\n", "policy.power_mw"),
        (SOURCE + "[offload]\nsending_mj_per_byte = -0.1\n", "offload.sending_mj_per_byte"),
        (SOURCE + '[results]\npath = "r"\ncap_bytes = 10\n', "results.cap_bytes"),
        ("readings_interval_s = 0.0\n" + SOURCE, "readings_interval_s"),
    ],
)
def test_what_cannot_be_meant_names_its_key(tmp_path: Path, text: str, key: str) -> None:
    assert refused(tmp_path, text).key == key


def test_files_of_conf_d_are_laid_over_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE + "[budget]\nlatency_ms = 10.0\nuplink_bytes = 7\n")
    write(tmp_path, "[budget]\nlatency_ms = 20.0\n", "conf.d/10-budget.toml")
    write(tmp_path, "[budget]\nlatency_ms = 30.0\n", "conf.d/20-budget.toml")
    write(tmp_path, "latency_ms = what", "conf.d/30-not-read.txt")
    config = load_config(path)
    assert config.budget.latency_ms == 30.0
    assert config.budget.uplink_bytes == 7


def test_a_mistake_in_conf_d_names_that_file(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE)
    extra = write(tmp_path, "colour = 3\n", "conf.d/10.toml")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.file == str(extra)


def test_the_environment_beats_files_and_flags_beat_both(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE + "[budget]\nlatency_ms = 10.0\n")
    environment = {
        "EDGEEXIT__BUDGET__LATENCY_MS": "40.0",
        "EDGEEXIT__DEVICE": "pi-7",
        "EDGEEXIT__SOURCE__LOOP": "true",
        "HOME": "/root",
    }
    config = load_config(path, environment=environment)
    assert (config.budget.latency_ms, config.device, config.source.loop) == (40.0, "pi-7", True)
    flagged = load_config(path, environment=environment, flags={"budget": {"latency_ms": 50.0}})
    assert (flagged.budget.latency_ms, flagged.device) == (50.0, "pi-7")


def test_a_misspelt_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, SOURCE), environment={"EDGEEXIT__BUDGET__LATENCY": "40"})
    assert caught.value.file == "the environment"
    assert caught.value.fix == "did you mean budget.latency_ms?"


def test_flags_alone_are_enough() -> None:
    flags = {"source": {"kind": "camera", "path": "0"}, "budget": {"latency_ms": 50}}
    config = load_config(None, flags=flags)
    assert isinstance(config, DeviceConfig)
    assert config.budget.latency_ms == 50.0


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml")
    assert caught.value.fix is not None


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_one_typed_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)  # no random bytes name a source


def test_this_machine_has_an_id_that_can_stand_in_a_topic() -> None:
    assert set(host_id("device")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert host_id("device")


def test_what_sending_takes_is_configured_or_the_boards_own_or_unknown(tmp_path: Path) -> None:
    plain = load_config(write(tmp_path, SOURCE))
    told = load_config(write(tmp_path, SOURCE + "[offload]\nsending_mj_per_byte = 0.02\n"))
    board = read_profile("generic-linux")
    measured = msgspec.structs.replace(board, radio=Radio(0.004, "a meter"))
    figures = [
        sending_mj_per_byte(config, profile) for config in (plain, told) for profile in (board, measured)
    ]
    assert figures == [None, 0.004, 0.02, 0.02]
