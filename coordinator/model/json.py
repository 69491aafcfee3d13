"""JSON values: written only if every reader can take them.

A value that exceeds a limit and nevertheless reaches a reader, for instance because it is older than the limit, is replaced by
``{"unreadable": "<limit>"}``: by the database for events, and for everything else by the connection that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from coordinator.errors import InvalidArgument
from coordinator.model.operation import Json

__all__ = ["UNREADABLE", "decoded", "encode", "fault_of", "readable", "unreadable"]

UNREADABLE = "unreadable"

_encode = msgspec.json.encode


def encode(value: object, enc_hook: Callable[[Any], Any] | None = None) -> bytes:
    """Encode a value.

    Raises: ``InvalidArgument`` for a value that is nested too deeply, or has a number that JSON cannot express.
    """
    try:
        encoded = _encode(value, enc_hook=enc_hook)
        if b"null" in encoded and not _finite(value):  # msgspec writes NaN and infinity as null
            raise InvalidArgument(
                "JSON cannot express NaN or infinity", hint="Give a finite number, or null.", code="ZC104"
            )
    except RecursionError:
        raise InvalidArgument(
            "the value is nested too deeply", hint="Nest lists and dicts at most 64 levels deep.", code="ZC102"
        ) from None
    return encoded


def decoded(value: Any) -> Any:
    """Return a JSON value that is perhaps still encoded (``msgspec.Raw``, as a daemon passes it on)."""
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def readable(text: bytes | memoryview | msgspec.Raw) -> Any:
    """Decode a JSON value; return what stands for it if it cannot be decoded."""
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        return unreadable("json_depth")
    except (msgspec.MsgspecError, ValueError):
        return unreadable("json_number")


def fault_of(value: object) -> str | None:
    """Return the limit that a value exceeded if this is what stands for it."""
    return str(value[UNREADABLE]) if isinstance(value, dict) and len(value) == 1 and UNREADABLE in value else None


def unreadable(limit: str) -> dict[str, Json]:
    """Return what stands for a value that exceeds a limit."""
    return {UNREADABLE: limit}


def _finite(value: object) -> bool:
    match value:
        case float():
            return isfinite(value)
        case dict():
            return all(map(_finite, value.values()))
        case list() | tuple():
            return all(map(_finite, value))
        case msgspec.Struct():
            return all(map(_finite, msgspec.structs.astuple(value)))
    return True
