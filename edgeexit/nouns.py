"""Nouns that are made many times a frame."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TypeVar

Noun = TypeVar("Noun")


def quickly_made(noun: type[Noun]) -> type[Noun]:
    """The same frozen dataclass with slots, made by plain assignments.

    The constructor of a frozen dataclass looks every field up by its name, and after a stage all that is
    looked up comes from memory. Here an object is of a class that is not frozen for as long as its fields are
    set, which is before anybody else can see it.
    Raises: TypeError for a class that is no dataclass with slots, that extends another one, or whose
    constructor does more than set fields.
    """
    every = fields(noun)  # type: ignore[arg-type]  # TypeError where it is no dataclass
    slots = tuple(field.name for field in every)
    if noun.__dict__.get("__slots__") != slots or hasattr(noun, "__post_init__"):
        raise TypeError(f"{noun.__name__} has a constructor of its own, or no slots of its own")
    if any(not field.init or field.kw_only or field.default_factory is not MISSING for field in every):
        raise TypeError(f"{noun.__name__} has a field that is not simply given")
    defaults = {field.name: field.default for field in every if field.default is not MISSING}
    given = [f"{name}=_defaults[{name!r}]" if name in defaults else name for name in slots]
    lines = [
        f"def __init__(self, {', '.join(given)}):",
        "    _set(self, '__class__', _open)",
        *(f"    self.{name} = {name}" for name in slots),
        "    self.__class__ = _closed",
    ]
    scope: dict[str, object] = {
        "_defaults": defaults,
        "_set": object.__setattr__,
        "_open": type(noun.__name__, (), {"__slots__": slots}),
        "_closed": noun,
    }
    # As dataclasses makes its own: only written out are assignments to slots as quick as they can be.
    exec("\n".join(lines), scope)
    made = scope["__init__"]
    original = noun.__init__
    for name in ("__annotations__", "__qualname__", "__module__"):
        setattr(made, name, getattr(original, name))
    noun.__init__ = made  # type: ignore[assignment]
    return noun
