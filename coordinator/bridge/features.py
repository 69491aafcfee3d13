"""The commands for features: the list of planned features of a project, in the document "main" of kind "features".

The text stays as it was imported, except for the status of a feature that is set.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.bridge.bridge import Bridge, BridgeError, read_input, say
from coordinator.bridge.commands import set_signal
from coordinator.errors import Conflict, NotFound
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import JsonText, Operation
from coordinator.operations import documents

__all__ = ["KEY", "KIND", "feature", "import_", "saved"]

KIND, KEY = "features", "main"
CHANGED = "ZC301"  # another version was written first
NESTED_TOO_DEEPLY = "it is nested too deeply"


class _Dependencies(msgspec.Struct):
    depends_on_ids: list[str | None] | None = None
    exclusive_write_paths: list[str | None] | None = None
    read_only_paths: list[str | None] | None = None


class _Feature(msgspec.Struct):
    """The fields of a feature in recac."""

    id: str | None = None
    category: str | None = None
    priority: str | None = None
    description: str | None = None
    status: str | None = None
    passes: bool | None = None
    steps: list[str | None] | None = None
    dependencies: _Dependencies | None = None


class _FeatureList(msgspec.Struct):
    project_name: str | None = None
    features: list[_Feature | None] | None = None


class _Stored(msgspec.Struct):
    """The fields that determine the state of a feature, even in a list that another program saved."""

    id: str | int | float = ""
    status: str | None = None
    passes: bool | None = None

    @property
    def done(self) -> bool:
        return (self.status or "").lower() == "done" and self.passes is True


async def feature(bridge: Bridge, arguments: list[str]) -> None:
    """List the features, or set the status of one."""
    match arguments:
        case []:
            raise BridgeError("usage: agent-bridge feature <set|list> [args]")
        case ["list", *_]:
            await _list(bridge)
        case ["set", feature_id, *options] if options:
            status, passes = _options(options)
            await _set(bridge, feature_id, status, passes=passes)
        case ["set", *_]:
            raise BridgeError("usage: agent-bridge feature set <id> --status <status> --passes <true/false>")
        case [other, *_]:
            raise BridgeError(f"unknown feature subcommand: {other}")


async def import_(bridge: Bridge, _arguments: list[str]) -> None:
    """Save the list on standard input."""
    text, count = saved(read_input(LIMITS["document"]))
    await bridge.run(documents.Put(project=bridge.project, kind=KIND, key=KEY, value=text))
    say(f"Successfully imported {count} features.")


def saved(data: bytes) -> tuple[JsonText, int]:
    """Return the text to save for a list, and the number of its features. A feature without an id gets its index as id.

    Raises: ``BridgeError`` for input that is not a list of features.
    """
    try:
        known = (msgspec.json.decode(data, type=_FeatureList | None) or _FeatureList()).features
        document = msgspec.json.decode(data, type=dict[str, msgspec.Raw] | None) or {}
        parts = (
            msgspec.json.decode(document.get("features", "[]"), type=list[dict[str, msgspec.Raw] | None] | None) or []
        )
    except RecursionError:
        raise BridgeError(f"invalid json: {NESTED_TOO_DEEPLY}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BridgeError(f"invalid json: {error}") from None
    if known is not None and all(one is not None and one.id is not None for one in known):
        return JsonText(data.strip()), len(known)
    for place, part in enumerate(parts):
        named = {"id": msgspec.Raw(b'"feature-%d"' % (place + 1)), **(part or {})}
        if named["id"] == msgspec.Raw(b"null"):
            named["id"] = msgspec.Raw(b'"feature-%d"' % (place + 1))
        parts[place] = named
    document["features"] = msgspec.Raw(msgspec.json.encode(parts))
    return JsonText(msgspec.json.encode(document)), len(parts)


async def _list(bridge: Bridge) -> None:
    try:
        found = await bridge.run(documents.Get(project=bridge.project, kind=KIND, key=KEY))
    except NotFound:
        say('{"features":[]}')
        return
    say(bytes(found.text).decode())


def _options(words: list[str]) -> tuple[str, bool]:
    """Return the values of --status and --passes; omitted options are empty and false, and other words are ignored."""
    given = {"--status": "", "--passes": ""}
    rest = iter(words)
    for word in rest:
        if word in given:
            given[word] = next(rest, given[word])
    return given["--status"], given["--passes"] == "true"


async def _set(bridge: Bridge, feature_id: str, status: str, *, passes: bool) -> None:
    """Set a feature at the version that was read, and COMPLETED if all are done. If the version has changed, read again."""
    while True:
        try:
            found = await bridge.run(documents.Get(project=bridge.project, kind=KIND, key=KEY))
        except NotFound:
            raise BridgeError("error executing command: no features found in DB") from None
        text, completed = _changed(bytes(found.text), feature_id, status, passes=passes)
        put = documents.Put(
            project=bridge.project, kind=KIND, key=KEY, value=text, expect=found.version, epoch=found.epoch
        )
        write: Operation[Any] = _with_signal(bridge.project, put) if completed else put
        try:
            await bridge.run(write)
        except Conflict as error:
            if error.code != CHANGED:
                raise
        else:
            break
    say(f"Feature {feature_id} updated: status={status}, passes={str(passes).lower()}")
    if completed:
        say("All features completed and passed. Auto-signaling COMPLETED.")


def _with_signal(project: str, put: documents.Put) -> Operation[Any]:
    from coordinator.operations.transactions import Run  # noqa: PLC0415 - only for the last feature

    return Run.of(project, [put, set_signal(project, "COMPLETED", "true")])


def _changed(data: bytes, feature_id: str, status: str, *, passes: bool) -> tuple[JsonText, bool]:
    """Return a list with one feature changed, and whether all features are done."""
    try:
        known, parts, document = _read(data)
        place = next(place for place, one in enumerate(known) if str(one.id) == feature_id)
        change = {
            "status": msgspec.Raw(msgspec.json.encode(status)),
            "passes": msgspec.Raw(b"true" if passes else b"false"),
        }
    except StopIteration:
        raise BridgeError(f"error executing command: feature ID {feature_id} not found") from None
    except UnicodeEncodeError:
        raise BridgeError("the status is not valid UTF-8") from None
    except RecursionError:
        raise BridgeError(f"failed to unmarshal features: {NESTED_TOO_DEEPLY}") from None
    except msgspec.DecodeError as error:
        raise BridgeError(f"failed to unmarshal features: {error}") from None
    parts[place] |= change
    known[place].status, known[place].passes = status, passes
    listed = msgspec.json.encode(parts)
    whole = listed if document is None else msgspec.json.encode(document | {"features": msgspec.Raw(listed)})
    return JsonText(whole), all(one.done for one in known)


def _read(data: bytes) -> tuple[list[_Stored], list[dict[str, msgspec.Raw]], dict[str, msgspec.Raw] | None]:
    """Return the features, their texts, and the object around them, if there is one."""
    if data.lstrip().startswith(b"["):
        listed, document = data, None
    else:
        document = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        listed = bytes(document.get("features", msgspec.Raw(b"[]")))
    known = msgspec.json.decode(listed, type=list[_Stored])
    return known, msgspec.json.decode(listed, type=list[dict[str, msgspec.Raw]]), document
