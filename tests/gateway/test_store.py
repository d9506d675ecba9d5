"""The store: every valid bundle is found, also later, and no bad one does harm."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeexit.bundle import Bundle, Trust, open_bundle, sign_bundle
from edgeexit.bundle.secret_key import generate_key
from edgeexit.errors import ConfigError
from edgeexit.gateway.store import BundleStore

if TYPE_CHECKING:
    from tests.gateway.conftest import CopyBundle


def test_bundle_alone_is_a_store(tiny_bundle: Bundle) -> None:
    store = BundleStore(tiny_bundle.path, bundle_limit=4)
    assert [bundle.digest for bundle in store.scan().added] == [tiny_bundle.digest]


def test_new_bundle_is_found_and_gone_one_is_dropped(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    store = BundleStore(tmp_path, bundle_limit=4)
    assert store.scan().added == ()
    first = copy_bundle(tmp_path / "first", 1)
    assert [bundle.digest for bundle in store.scan().added] == [first.digest]
    second = copy_bundle(tmp_path / "second", 2)
    change = store.scan()
    assert [bundle.digest for bundle in change.added] == [second.digest]
    shutil.rmtree(tmp_path / "first")
    assert [bundle.digest for bundle in store.scan().removed] == [first.digest]
    assert set(store.bundles) == {second.digest}
    assert store.scan() == type(change)((), (), ())


def test_only_bundles_by_somebody_trusted_are_served(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    key, stranger = generate_key(), generate_key()
    copy_bundle(tmp_path / "unsigned", 1)
    sign_bundle(copy_bundle(tmp_path / "foreign", 2), stranger, unix_s=0)
    signed = sign_bundle(copy_bundle(tmp_path / "signed", 3), key, unix_s=0)
    store = BundleStore(tmp_path, bundle_limit=4, trust=Trust((key.public,)))
    change = store.scan()
    assert [bundle.digest for bundle in change.added] == [signed.digest]
    why = {rejected.path.name: rejected.why for rejected in change.rejected}
    assert "not signed" in why["unsigned"]
    assert stranger.public.name in why["foreign"]
    # Signed while the gateway runs, it is taken up at the next look.
    late = sign_bundle(open_bundle(tmp_path / "unsigned"), key, unix_s=0)
    assert [bundle.digest for bundle in store.scan().added] == [late.digest]


def test_half_copied_bundle_is_told_once_and_served_when_complete(
    tmp_path: Path, copy_bundle: CopyBundle
) -> None:
    whole = copy_bundle(tmp_path / "elsewhere", 3)
    store_path = tmp_path / "store"
    half = store_path / "half"
    half.mkdir(parents=True)
    shutil.copy(whole.path / "manifest.json", half)
    store = BundleStore(store_path, bundle_limit=4)
    assert [rejected.path for rejected in store.scan().rejected] == [half]
    assert store.scan().rejected == ()
    shutil.copytree(whole.path, half, dirs_exist_ok=True)
    assert [bundle.digest for bundle in store.scan().added] == [whole.digest]


def test_tampered_bundle_is_no_longer_served(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    bundle = copy_bundle(tmp_path / "bundle", 1)
    good = copy_bundle(tmp_path / "good", 2)
    store = BundleStore(tmp_path, bundle_limit=4)
    store.scan()
    model = bundle.path / bundle.manifest.stages[0].variants[0].blob.file
    model.chmod(0o644)
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(bytes(data))
    change = store.scan()
    assert [removed.digest for removed in change.removed] == [bundle.digest]
    assert len(change.rejected) == 1
    assert set(store.bundles) == {good.digest}


def test_links_and_copies_of_one_bundle_are_one(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    bundle = copy_bundle(tmp_path / "a", 1)
    (tmp_path / "current").symlink_to("a")
    copy_bundle(tmp_path / "b", 1)
    store = BundleStore(tmp_path, bundle_limit=1)
    assert store.scan().rejected == ()
    assert set(store.bundles) == {bundle.digest}


def test_limit_keeps_those_served_before(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    old = copy_bundle(tmp_path / "z", 1)
    store = BundleStore(tmp_path, bundle_limit=1)
    store.scan()
    new = copy_bundle(tmp_path / "a", 2)
    change = store.scan()
    assert (change.added, change.removed) == ((), ())
    assert [rejected.path for rejected in change.rejected] == [tmp_path / "a"]
    assert store.scan().rejected == ()
    shutil.rmtree(tmp_path / "z")
    change = store.scan()
    assert [bundle.digest for bundle in change.added] == [new.digest]
    assert [bundle.digest for bundle in change.removed] == [old.digest]


def test_foreign_things_in_the_store_are_passed_over(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    bundle = copy_bundle(tmp_path / "bundle", 1)
    (tmp_path / "README").write_text("not a bundle", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    store = BundleStore(tmp_path, bundle_limit=4)
    assert store.scan().rejected == ()
    assert set(store.bundles) == {bundle.digest}


def test_no_store_is_one_error_and_keeps_what_was_known(tmp_path: Path, copy_bundle: CopyBundle) -> None:
    with pytest.raises(ConfigError) as caught:
        BundleStore(tmp_path / "absent", bundle_limit=4).scan()
    assert caught.value.key == "store"
    bundle = copy_bundle(tmp_path / "store" / "bundle", 1)
    store = BundleStore(tmp_path / "store", bundle_limit=4)
    store.scan()
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(ConfigError):
        store.scan()
    assert set(store.bundles) == {bundle.digest}
