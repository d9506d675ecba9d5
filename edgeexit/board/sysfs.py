"""Sensors that Linux shows as files; every reader takes the root of the tree, so that captures can be read.

A sensor which is absent, powered down or broken is None: on a Jetson the zones of engines that are off
answer EAGAIN, on some kernels a zone answers EINVAL.
"""

from __future__ import annotations

from pathlib import Path

from edgeexit.board.readings import Throttling

# A sensor that reads outside this range is broken or not connected: no board works colder than -55 °C
# (the limit of industrial parts) or hotter than 150 °C (junctions shut down near 105 °C).
COLDEST_C, HOTTEST_C = -55.0, 150.0

# The longest text read here is a model name: "NVIDIA Jetson Orin Nano Engineering Reference Developer
# Kit Super" has 65 characters; a file that says more is not one of these.
LARGEST_READING_CHARACTERS = 256

# hwmon chips have at most a handful of channels (INA3221: three rails, a fourth for their sum).
LAST_CHANNEL = 8

Root = Path


def read_text(path: Path) -> str | None:
    """The first characters of a file, stripped; None where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_READING_CHARACTERS).strip().rstrip("\0")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """The whole number in a file; None where there is none."""
    text = read_text(path)
    try:
        return None if text is None else float(int(text))
    except ValueError:
        return None


def temperature_c(root: Root, zones: tuple[str, ...]) -> float | None:
    """Temperature of the hottest thermal zone whose type is among `zones`; of the hottest at all if empty."""
    found: list[float] = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if zones and read_text(zone / "type") not in zones:
            continue
        reading = read_number(zone / "temp")
        if reading is None:
            continue
        celsius = reading / 1000.0  # the kernel writes millidegrees
        if COLDEST_C <= celsius <= HOTTEST_C:
            found.append(celsius)
    return max(found, default=None)


def cpu_hz(root: Root) -> float | None:
    """Frequency of the fastest core now."""
    found: list[float] = []
    for policy in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        kilohertz = read_number(policy / "scaling_cur_freq")
        if kilohertz is not None and kilohertz > 0:
            found.append(kilohertz * 1000.0)
    return max(found, default=None)


def power_w(root: Root, rails: tuple[str, ...]) -> float | None:
    """Sum of the power of the named rails, from hwmon chips with voltage and current channels.

    None unless every named rail was read: half a sum would look like a saving.
    Source: kernel documentation of ina3221: in*_input in millivolt, curr*_input in milliampere.
    """
    if not rails:
        return None
    read: dict[str, float] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        for channel in range(1, LAST_CHANNEL + 1):
            label = read_text(chip / f"in{channel}_label")
            if label not in rails or label in read:
                continue
            millivolts = read_number(chip / f"in{channel}_input")
            milliamperes = read_number(chip / f"curr{channel}_input")
            if millivolts is not None and milliamperes is not None:
                read[label] = millivolts * milliamperes / 1e6
    return sum(read.values()) if len(read) == len(rails) else None


def thermal_throttling(root: Root) -> Throttling | None:
    """Whether a cooling device holds back the processor's frequency now; None where none is bound to it.

    Source: kernel documentation of the thermal sysfs interface: cur_state 0 means no cooling.
    """
    states: list[float] = []
    for cooler in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        if "cpufreq" not in (read_text(cooler / "type") or ""):
            continue
        state = read_number(cooler / "cur_state")
        if state is not None:
            states.append(state)
    if not states:
        return None
    return Throttling(now=("thermal",) if max(states) > 0 else (), since_boot=())
