"""Every topic of edgeexit, named and parsed in one place.

Ids are lower case, `[a-z0-9-]`, so that no id can hold a level separator or a wildcard. A bundle is
named by the first 12 hex digits of its digest: tensors of one bundle cannot reach another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeexit.errors import ConfigError

PREFIX = "edgeexit/v1"

# All gateways that take requests from the pool are one shared subscription.
POOL_FILTER = f"$share/edgeexit/{PREFIX}/infer/+/+"
GATEWAY_STATUS_FILTER = f"{PREFIX}/g/+/status"
DEVICE_STATUS_FILTER = f"{PREFIX}/d/+/status"
DEVICE_INFO_FILTER = f"{PREFIX}/d/+/info"
DEVICE_METRICS_FILTER = f"{PREFIX}/d/+/metrics"
DEVICE_RESULT_FILTER = f"{PREFIX}/d/+/result"

DIGEST12 = 12

# 23 characters is what MQTT 3.1 brokers promise for client ids, 64 what a DNS label-like name needs;
# ids are also MQTT user names and client ids with a suffix.
ID_CAP = 64

_ID = re.compile(rf"[a-z0-9-]{{1,{ID_CAP}}}\Z")
_GATEWAY_STATUS = re.compile(rf"{PREFIX}/g/([a-z0-9-]{{1,{ID_CAP}}})/status\Z")
_DEVICE_STATUS = re.compile(rf"{PREFIX}/d/([a-z0-9-]{{1,{ID_CAP}}})/(status|info|metrics|reported|result)\Z")
_INFER = re.compile(rf"{PREFIX}/(?:g/([a-z0-9-]{{1,{ID_CAP}}})/)?infer/([0-9a-f]{{12}})/([0-9]{{1,3}})\Z")
_REPLY = re.compile(rf"{PREFIX}/([do])/([a-z0-9-]{{1,{ID_CAP}}})/reply\Z")


@dataclass(frozen=True, slots=True)
class InferTopic:
    """A parsed request topic; `gateway` is None for the pool."""

    gateway: str | None
    digest12: str
    stage: int


@dataclass(frozen=True, slots=True)
class DeviceTopic:
    """A parsed topic that a device speaks on: status, info, metrics, reported or result."""

    device: str
    leaf: str


def require_id(value: str, *, key: str) -> str:
    """The id itself. Raises: ConfigError when it could not stand in a topic."""
    if _ID.match(value) is None:
        raise ConfigError(
            f"{value!r} is not an id",
            key=key,
            why=f"ids are 1 to {ID_CAP} of a-z, 0-9 and -",
            fix="use lower case letters, digits and hyphens, such as porch-camera-1",
        )
    return value


def digest12(bundle_digest: str) -> str:
    """The part of a bundle's digest that stands in topics."""
    return bundle_digest[:DIGEST12]


def device_status(device: str) -> str:
    """Retained: how the device is. Also its will."""
    return f"{PREFIX}/d/{device}/status"


def device_info(device: str) -> str:
    """Retained: what the device is."""
    return f"{PREFIX}/d/{device}/info"


def device_metrics(device: str) -> str:
    """A small snapshot of figures, every few seconds."""
    return f"{PREFIX}/d/{device}/metrics"


def device_result(device: str) -> str:
    """The device's answers."""
    return f"{PREFIX}/d/{device}/result"


def device_budget(device: str) -> str:
    """What the device's answers may cost; retained if it is to last."""
    return f"{PREFIX}/d/{device}/budget"


def device_desired(device: str) -> str:
    """Retained: what an operator wants of the device."""
    return f"{PREFIX}/d/{device}/desired"


def device_reported(device: str) -> str:
    """Retained: what became of it."""
    return f"{PREFIX}/d/{device}/reported"


def device_command(device: str, verb: str) -> str:
    """A command, answered through its Response Topic."""
    return f"{PREFIX}/d/{device}/cmd/{verb}"


def device_reply(device: str) -> str:
    """Where replies to a device go."""
    return f"{PREFIX}/d/{device}/reply"


def operator_reply(operator: str) -> str:
    """Where replies to an operator go."""
    return f"{PREFIX}/o/{operator}/reply"


def gateway_status(gateway: str) -> str:
    """Retained: the gateway's advert. Also its will."""
    return f"{PREFIX}/g/{gateway}/status"


def gateway_infer(gateway: str, bundle_digest: str, stage: int) -> str:
    """A request to this gateway, from this stage on."""
    return f"{PREFIX}/g/{gateway}/infer/{digest12(bundle_digest)}/{stage}"


def gateway_infer_filter(gateway: str) -> str:
    """Every request to this gateway."""
    return f"{PREFIX}/g/{gateway}/infer/+/+"


def pool_infer(bundle_digest: str, stage: int) -> str:
    """A request to whichever gateway the broker picks."""
    return f"{PREFIX}/infer/{digest12(bundle_digest)}/{stage}"


def parse_gateway_status(topic: str) -> str | None:
    """The gateway whose status this is; None for any other topic."""
    match = _GATEWAY_STATUS.match(topic)
    return None if match is None else match[1]


def parse_device(topic: str) -> DeviceTopic | None:
    """The device and what it speaks of; None for any other topic."""
    match = _DEVICE_STATUS.match(topic)
    return None if match is None else DeviceTopic(match[1], match[2])


def parse_infer(topic: str) -> InferTopic | None:
    """The parts of a request topic; None for any other topic."""
    match = _INFER.match(topic)
    return None if match is None else InferTopic(match[1], match[2], int(match[3]))


def is_reply(topic: str) -> bool:
    """Whether a gateway may publish there: anything else as Response Topic would be a hole."""
    return _REPLY.match(topic) is not None
