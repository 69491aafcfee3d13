"""``ui_verification.json``: requests for people to check the user interface.

Guarantees: the file is replaced as a whole, so a reader sees it before or after a change. Programs that change it wait
for each other, with a lock on its directory. Other contents of the file are kept.

On failure: a killed program leaves the file unchanged, and possibly a temporary file, which the next one overwrites.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from coordinator.bridge.bridge import BridgeError

__all__ = ["FILE", "NotJson", "update"]

FILE = "ui_verification.json"
PENDING = "pending_human"
MAX_BYTES = 8 << 20
TURN_S = 10.0
LOOK_S = 0.01


class NotJson(Exception):
    """The file is not valid."""


class _Verifications(msgspec.Struct):
    requests: list[dict[str, msgspec.Raw]] | None = None


class _Verification(msgspec.Struct):
    feature_id: str | None = None
    instruction: str | None = None
    status: str | None = None
    feedback: str | None = None


def update(path: Path, request: str, status: str) -> bool:
    """Set the status of a request, and return whether no request waits for people any more.

    Raises: ``BridgeError`` if there is no such file or request; ``NotJson``.
    """
    path = path.resolve()
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:
        raise BridgeError(f"could not read {FILE}") from None
    try:
        _take_turn(folder)
        text, none_left = _changed(_read(path), request, status)
        try:
            _replace(path, text)
        except OSError as error:
            raise BridgeError(f"could not write {FILE}: {error.strerror}") from None
    finally:
        os.close(folder)
    return none_left


def _take_turn(folder: int) -> None:
    ends_at = time.monotonic() + TURN_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends_at:
                raise BridgeError(f"another program has been changing {FILE} for {TURN_S:g} seconds") from None
            time.sleep(LOOK_S)
        else:
            return


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        raise BridgeError(f"could not read {FILE}") from None
    if len(data) > MAX_BYTES:
        raise BridgeError(f"{FILE} has more than {MAX_BYTES} bytes")
    return data


def _changed(data: bytes, request: str, status: str) -> tuple[bytes, bool]:
    try:
        document = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        listed = msgspec.json.decode(data, type=_Verifications).requests or []
        known = [msgspec.json.decode(msgspec.json.encode(one), type=_Verification) for one in listed]
        wanted = msgspec.Raw(msgspec.json.encode(status))
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise BridgeError("the status is not valid UTF-8") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(str(error)) from None
    found = [place for place, one in enumerate(known) if one.feature_id == request]
    if not found:
        raise BridgeError(f"feature ID {request} not found in {FILE}")
    for place in found:
        listed[place]["status"] = wanted
    none_left = all((status if place in found else one.status) != PENDING for place, one in enumerate(known))
    document["requests"] = msgspec.Raw(msgspec.json.encode(listed))
    return msgspec.json.format(msgspec.json.encode(document), indent=2), none_left


def _replace(path: Path, text: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        os.fchmod(descriptor, path.stat().st_mode & 0o7777)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)  # noqa: PTH105 - tests stop here
