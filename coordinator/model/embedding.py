"""Embeddings in a query: thousands of numbers in one parameter, which must fit into the head of a request.

``0.1,-0.2`` for people, and for programs ``f32:`` followed by the numbers in single precision as base64. Embeddings are
also stored in single precision.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence

from coordinator.errors import InvalidArgument

__all__ = ["pack", "unpack"]

_PACKED = "f32:"


def pack(numbers: Sequence[float]) -> str:
    """Encode numbers for a query.

    Raises: ``InvalidArgument`` for a number that single precision cannot represent.
    """
    try:
        return _PACKED + base64.urlsafe_b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except (OverflowError, struct.error):
        raise InvalidArgument(
            "the embedding has a number out of range", hint="Give finite numbers, up to 1e30.", code="ZC104"
        ) from None


def unpack(text: str) -> list[float]:
    """Parse the numbers of a query.

    Raises: ``InvalidArgument``.
    """
    try:
        if not text.startswith(_PACKED):
            return [float(number) for number in text.split(",")]
        packed = base64.b64decode(text.removeprefix(_PACKED), altchars=b"-_", validate=True)
        return [*struct.unpack(f"<{len(packed) // 4}f", packed)]
    except (ValueError, binascii.Error, struct.error):
        raise InvalidArgument(
            f'"{text[:50]}" is not a list of numbers', hint="Write it like 0.1,-0.2.", code="ZC103"
        ) from None
