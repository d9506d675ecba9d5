"""Adding packers to a bundle: files proved, bytes and cost measured, everything else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeexit.bundle import Bundle, open_bundle
from edgeexit.convert.packing import add_packers
from edgeexit.errors import ConfigError, LoweringError
from edgeexit.models.packers import Bottleneck, PackerModules, pooling
from edgeexit.runner.packing import open_packing, open_unpacking
from edgeexit.runner.selection import open_verified
from edgeexit.training.data import Samples
from edgeexit.transport.codecs import payload_bytes

pytestmark = [pytest.mark.convert, pytest.mark.litert]


def labelled(bundle: Bundle) -> Samples:
    """The golden images, the truth being what the float network says."""
    golden = bundle.golden()
    truth = golden.outputs[-1].argmax(axis=1).astype(np.int64)
    return Samples(images=golden.inputs["image"][:, 0], targets=truth, name="golden")  # n 1 1 8 8 -> n 1 8 8


def test_packers_are_added_and_nothing_else_changes(tiny_bundle: Bundle, tmp_path: Path) -> None:
    torch.manual_seed(0)
    narrow = Bottleneck(8, 4).halves("tokens", 2)[-1]
    packers = [pooling("tokens", 4, 1), narrow]
    told: list[int] = []
    made = add_packers(tiny_bundle, packers, labelled(tiny_bundle), out=tmp_path / "a", tell=told.append)
    assert told[-1] == tiny_bundle.golden().count
    again = add_packers(tiny_bundle, packers, labelled(tiny_bundle), out=tmp_path / "b")
    assert made.digest == again.digest != tiny_bundle.digest
    assert open_bundle(made.path, expected_digest=made.digest).manifest.stages == tiny_bundle.manifest.stages
    first, second = made.manifest.boundaries[1:]
    assert [codec.codec for codec in first.codecs] == ["raw", "f16", "pool4-int8", "pool4-int4"]
    packer = first.packer("pool4-int8")
    assert packer is not None
    assert first.codecs[2].payload_bytes == payload_bytes(packer.tensors, "pool4-int8")
    # The mean of four patches is not what they were, and an untrained bottleneck says nothing.
    assert first.codecs[2].quality_cost > 0.1
    assert second.packer("bottleneck2") is not None
    # Four bytes cannot be compressed.
    assert "bottleneck2-zstd" not in {codec.codec for codec in second.codecs}
    runner, _ = open_verified(made)
    for opened in (open_packing(made, runner), open_unpacking(made, runner)):
        assert opened.codecs == {(1, "pool4-int8"), (1, "pool4-int4"), (2, "bottleneck2")}


def test_packers_that_do_not_fit_are_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    good = pooling("tokens", 4, 1)
    other = PackerModules(good.name, 0, good.codecs, good.pack, good.unpack)
    with pytest.raises(ConfigError):
        add_packers(tiny_bundle, [other], labelled(tiny_bundle), out=tmp_path / "out")
    one_way = PackerModules(good.name, 1, good.codecs, good.pack, pooling("pool4", 4, 1).pack)
    with pytest.raises((LoweringError, RuntimeError, KeyError)):
        add_packers(tiny_bundle, [one_way], labelled(tiny_bundle), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
