r"""JSON values: written only if every reader can decode them.

If a value that exceeds a limit reaches a reader nevertheless, for instance because it is older than the limit, it is
replaced by ``{"unreadable": "<limit>"}``: by the database for events, and by the connection that reads it for
everything else.

Text that must stay exact (``JsonText``) may contain lone surrogates, ``"\ud800"``, which are valid JSON. msgspec
rejects these even in parts that it skips. ``exactly_decoded`` hides them meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from types import NoneType
from typing import Any, TypeVar, cast

import msgspec

from coordinator.errors import InvalidArgument
from coordinator.model.operation import Json, JsonText

__all__ = [
    "UNREADABLE",
    "Exact",
    "decoded",
    "encode",
    "exactly_decoded",
    "fault_of",
    "readable",
    "text_of",
    "unreadable",
    "value_of",
]

UNREADABLE = "unreadable"

_encode = msgspec.json.encode
_FINITE = {NoneType, bool, int, str, msgspec.Raw}

_HIDDEN = b"\xff"  # replaces a backslash; never occurs in UTF-8, and msgspec accepts it in parts that it skips
# Compiled where they are used, since hardly any text contains one.
_PAIR = rb"\\(u[dD][89abAB][0-9a-fA-F]{2})\\(u[dD][c-fC-F][0-9a-fA-F]{2})"
_LONE = rb"\\(?=u[dD][89a-fA-F])"

T = TypeVar("T")


class Exact(msgspec.Struct, frozen=True, dict=True):
    """A row with content that passes byte for byte. Its representation shows the value of that content."""

    def __repr__(self) -> str:
        values = zip(
            self.__struct_encode_fields__, (getattr(self, name) for name in self.__struct_fields__), strict=True
        )
        shown = (f"{name}={(value_of(v) if isinstance(v, msgspec.Raw) else v)!r}" for name, v in values)
        return f"{type(self).__name__}({', '.join(shown)})"


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
        raise _too_deep() from None
    return encoded


def decoded(value: Any) -> Any:
    """Return a JSON value, decoding it if it is still encoded (``msgspec.Raw``, as a daemon passes it on)."""
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def readable(text: bytes | memoryview | msgspec.Raw) -> Any:
    """Decode a JSON value; return its placeholder if it cannot be decoded."""
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        return unreadable("json_depth")
    except (msgspec.MsgspecError, ValueError):
        return unreadable("json_number")


def text_of(value: object) -> JsonText:
    """Return the JSON text of a value; return a text unchanged, if it is exactly one JSON value.

    Raises: as ``encode``; ``InvalidArgument`` for another text, which could otherwise add fields to the call that contains it.
    """
    if isinstance(value, msgspec.Raw):
        _check(value)
        return value
    try:
        return JsonText(encode(value))
    except UnicodeEncodeError:  # an unpaired surrogate
        import json  # noqa: PLC0415 - slow to import, and rarely needed

        return JsonText(json.dumps(value, separators=(",", ":")).encode())


def _check(text: JsonText) -> None:
    """Reject a text that is not one JSON value. Most texts are skipped through, and not decoded."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):  # also for a lone surrogate, which is valid
        import json  # noqa: PLC0415 - slow to import, and rarely needed

        try:
            json.loads(bytes(text), parse_constant=_refuse_constant)
        except RecursionError:
            raise _too_deep() from None
        except ValueError as error:
            raise InvalidArgument(
                f"a JsonText is not one JSON value: {error}",
                hint="Pass valid JSON, or pass the value itself instead of its text.",
                code="ZC100",
            ) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> InvalidArgument:
    return InvalidArgument(
        "the value is nested too deeply", hint="Nest lists and dicts at most 64 levels deep.", code="ZC102"
    )


def value_of(text: JsonText) -> Any:
    """Return the value of a text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        import json  # noqa: PLC0415 - slow to import, and rarely needed

        return json.loads(bytes(text))


def exactly_decoded(data: bytes, type: type[T], dec_hook: Callable[[Any, Any], Any] | None = None) -> T:
    """Decode JSON in which some parts stay text, even if these contain lone surrogates.

    Raises: as ``msgspec.json.decode``.
    """
    try:
        return msgspec.json.decode(data, type=type, dec_hook=dec_hook)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        hidden = _hidden(data)
        if hidden == data:
            raise
    return cast("T", _shown(msgspec.json.decode(hidden, type=type, dec_hook=dec_hook)))


def _hidden(data: bytes) -> bytes:
    """Hide the backslashes of lone surrogates, unless the placeholder bytes already occur."""
    if re.search(_LONE, data) is None or any(byte in data for byte in b"\x01\x02\xff"):
        return data
    # Pairs of surrogates, and escaped backslashes.
    kept = re.sub(_PAIR, b"\x02\\1\x02\\2", data.replace(b"\\\\", b"\x01"))
    return re.sub(_LONE, _HIDDEN, kept).replace(b"\x02", b"\\").replace(b"\x01", b"\\\\")


def _shown(value: Any) -> Any:
    match value:
        case msgspec.Raw():
            return msgspec.Raw(bytes(value).replace(_HIDDEN, b"\\"))
        case msgspec.Struct():
            return msgspec.structs.replace(value, **{f: _shown(getattr(value, f)) for f in value.__struct_fields__})
        case list():
            return [_shown(item) for item in value]
    return value


def fault_of(value: object) -> str | None:
    """Return the limit that a value exceeded if this is its placeholder."""
    return str(value[UNREADABLE]) if isinstance(value, dict) and len(value) == 1 and UNREADABLE in value else None


def unreadable(limit: str) -> dict[str, Json]:
    """Return the placeholder of a value that exceeds a limit."""
    return {UNREADABLE: limit}


def _finite(value: object) -> bool:
    match value:
        case float():
            return isfinite(value)
        case dict():
            return all(_finite(item) for item in value.values() if type(item) not in _FINITE)
        case list() | tuple():
            return all(_finite(item) for item in value if type(item) not in _FINITE)
        case msgspec.Struct():
            return all(map(_finite, msgspec.structs.astuple(value)))
    return True
