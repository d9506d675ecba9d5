"""Topics: what is built can be parsed, and nothing else is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.errors import ConfigError
from edgeexit.transport import topics

_ids = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=64)
_digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(_ids, _digests, st.integers(0, 255))
def test_topics_are_parsed_back(name: str, digest: str, stage: int) -> None:
    directed = topics.parse_infer(topics.gateway_infer(name, digest, stage))
    assert directed == topics.InferTopic(name, digest[:12], stage)
    assert topics.parse_infer(topics.pool_infer(digest, stage)) == topics.InferTopic(None, digest[:12], stage)
    assert topics.parse_gateway_status(topics.gateway_status(name)) == name
    assert topics.parse_device(topics.device_info(name)) == topics.DeviceTopic(name, "info")
    assert topics.parse_device(topics.device_result(name)) == topics.DeviceTopic(name, "result")
    assert topics.parse_device(topics.device_budget(name)) is None
    assert topics.is_reply(topics.device_reply(name))
    assert topics.is_reply(topics.operator_reply(name))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edgeexit/v1/d/+/reply",
        "edgeexit/v1/d/a/b/reply",
        "edgeexit/v1/d/a/reply\n",
        "edgeexit/v1/d/A/reply",
        "edgeexit/v1/g/a/reply",
        "edgeexit/v1/d//reply",
        "x/edgeexit/v1/d/a/reply",
        "edgeexit/v1/d/a/desired",
    ],
)
def test_a_reply_goes_nowhere_else(topic: str) -> None:
    assert not topics.is_reply(topic)


@given(st.text(max_size=80))
def test_any_topic_is_parsed_or_refused(topic: str) -> None:
    topics.parse_infer(topic)
    topics.parse_gateway_status(topic)
    topics.parse_device(topic)
    topics.is_reply(topic)


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "Porch", "ä", "a" * 65, "a\n"])
def test_an_unfit_id_names_its_key(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        topics.require_id(name, key="device.id")
    assert caught.value.key == "device.id"
    assert caught.value.fix is not None


def test_a_fit_id_is_returned() -> None:
    assert topics.require_id("porch-camera-1", key="device.id") == "porch-camera-1"
