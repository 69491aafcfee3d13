"""Hints for malformed requests: what they should contain."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from coordinator.model.fields import fields_of
from coordinator.suggestion import nearest

__all__ = ["fields_hint", "shape_hint"]

_UNKNOWN = re.compile(r"unknown field `(.*)`")


def shape_hint(type: type[msgspec.Struct], error: msgspec.ValidationError) -> str:
    """Return the hint for a body that is not of a type."""
    unknown = _UNKNOWN.search(str(error))
    fields = fields_of(type)
    return fields_hint(
        [field.encode_name for field in fields],
        unknown=unknown[1] if unknown and "`$." not in str(error) else None,
        required={field.encode_name for field in fields if field.required},
    )


def fields_hint(names: Iterable[str], *, unknown: str | None = None, required: Iterable[str] = ()) -> str:
    """Return the valid fields, and the one that was probably meant by an unknown name."""
    known = list(names)
    close = nearest(unknown or "", known)
    listed = ", ".join(f"{name} (required)" if name in required else name for name in known)
    return f"{f'Did you mean {close}? ' if close else ''}Fields: {listed or 'none'}. See /schema."
