"""What differs between two bundles, field by field, and how much of them is the same file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from edgeexit.bundle.store import Bundle

# What names an entry of a list; entries of other lists (stages, exits, boundaries) are known by their place.
_NAMING = ("name", "codec", "variant")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One place of the manifest that differs; None: it is not there."""

    place: str
    before: str | None
    after: str | None


class BundleDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Two bundles held against each other.

    Units: shared_bytes, files that both have; added_bytes, what a board that has the first one still
    needs of the second (its manifest apart); dropped_bytes, what only the first one has.
    """

    before: str
    after: str
    differences: tuple[Difference, ...]
    shared_files: int
    shared_bytes: int
    added_files: int
    added_bytes: int
    dropped_files: int
    dropped_bytes: int


def compare(before: Bundle, after: Bundle) -> BundleDiff:
    """Every difference between two manifests, and what their files share."""
    ours = {blob.sha256: blob.size_bytes for blob in before.manifest.blobs()}
    theirs = {blob.sha256: blob.size_bytes for blob in after.manifest.blobs()}
    shared, added, dropped = ours.keys() & theirs.keys(), theirs.keys() - ours, ours.keys() - theirs
    found = _walk(msgspec.to_builtins(before.manifest), msgspec.to_builtins(after.manifest), "")
    signers = tuple(None if each.signature is None else each.signature.key_name for each in (before, after))
    differences = list(found)
    if signers[0] != signers[1]:
        differences.append(Difference(place="signature", before=signers[0], after=signers[1]))
    return BundleDiff(
        before=before.digest,
        after=after.digest,
        differences=tuple(differences),
        shared_files=len(shared),
        shared_bytes=sum(ours[sha256] for sha256 in shared),
        added_files=len(added),
        added_bytes=sum(theirs[sha256] for sha256 in added),
        dropped_files=len(dropped),
        dropped_bytes=sum(ours[sha256] for sha256 in dropped),
    )


def _walk(before: object, after: object, place: str) -> Iterator[Difference]:
    """The differences below one place, in the order of the first manifest."""
    if before == after:
        return
    ours, theirs = _entries(before), _entries(after)
    if ours is None or theirs is None:
        yield Difference(place=place, before=_text(before, after), after=_text(after, before))
        return
    for name in dict.fromkeys((*ours, *theirs)):
        here = f"{place}{name}" if name.startswith("[") or not place else f"{place}.{name}"
        if name not in theirs:
            yield Difference(place=here, before=_text(ours[name], None), after=None)
        elif name not in ours:
            yield Difference(place=here, before=None, after=_text(theirs[name], None))
        else:
            yield from _walk(ours[name], theirs[name], here)


def _entries(value: object) -> Mapping[str, object] | None:
    """The parts of a value by name; None where it is shown as a whole."""
    if isinstance(value, dict):
        # A file is one thing, named three times over.
        return None if "sha256" in value and "size_bytes" in value else value
    if isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
        for key in _NAMING:
            names = [str(item[key]) for item in value if key in item]
            if len(names) == len(value) == len(set(names)):
                return dict(zip(names, value, strict=True))
        return {f"[{index}]": item for index, item in enumerate(value)}
    return None


def _text(value: object, other: object) -> str:
    """A value in a few words; `other` is what it is held against."""
    if isinstance(value, dict):
        blob = value.get("blob", value)
        if isinstance(blob, dict) and "size_bytes" in blob:
            return f"{blob['size_bytes']:,} bytes, {str(blob['sha256'])[:12]}"
        return "present"
    if isinstance(value, list | tuple):
        if len(value) <= 4 and not any(isinstance(item, list | tuple | dict) for item in value):
            return ", ".join(_text(item, None) for item in value) or "none"
        if isinstance(other, list | tuple) and len(other) == len(value):
            changed = sum(ours != theirs for ours, theirs in zip(value, other, strict=True))
            return f"{len(value)} entries, {changed} of them other"
        return f"{len(value)} entries"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
