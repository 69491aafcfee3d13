"""The commands that set and clear signals."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from coordinator.bridge.bridge import Bridge, BridgeError, note, project_name, say
from coordinator.errors import Conflict, NotFound
from coordinator.operations import signals

__all__ = ["CRITICAL", "blocker", "clear_signal", "manager", "qa", "set_signal", "signal", "verify"]

PRIVILEGED = ("PROJECT_SIGNED_OFF", "TRIGGER_QA", "TRIGGER_MANAGER")
CRITICAL = ("COMPLETED", "QA_PASSED", "PROJECT_SIGNED_OFF")  # they never expire
UI_BLOCKER = "UI Verification Required"


def set_signal(project: str, key: str, value: str, expect: int | None = None) -> signals.Set:
    """Return the operation that sets a signal; one that is not critical lasts for a day."""
    return signals.Set(project=project, key=key, value=value, critical=key in CRITICAL, expect=expect)


async def blocker(bridge: Bridge, arguments: list[str]) -> None:
    """Set BLOCKER to a message."""
    if not arguments:
        raise BridgeError("usage: agent-bridge blocker <message>")
    await bridge.run(set_signal(bridge.project, "BLOCKER", arguments[0]))
    say("Blocker signal set.")


async def qa(bridge: Bridge, _arguments: list[str]) -> None:
    """Ask for the QA process."""
    await bridge.run(set_signal(bridge.project, "TRIGGER_QA", "true"))
    say("QA trigger signal set.")


async def manager(bridge: Bridge, _arguments: list[str]) -> None:
    """Ask for the manager's review."""
    await bridge.run(set_signal(bridge.project, "TRIGGER_MANAGER", "true"))
    say("Manager trigger signal set.")


async def signal(bridge: Bridge, arguments: list[str]) -> None:
    """Set a signal. If ``--privileged`` is given, it is the first argument."""
    privileged = arguments[:1] == ["--privileged"]
    if len(arguments) < 2 + privileged:
        raise BridgeError("usage: agent-bridge signal [--privileged] <key> <value>")
    key, value = arguments[privileged : privileged + 2]
    if key in PRIVILEGED and not privileged:
        raise BridgeError(f"signal '{key}' is privileged and cannot be set via agent-bridge without --privileged flag")
    await bridge.run(set_signal(bridge.project, key, value))
    say(f"Signal {key} set to {value}.")


async def clear_signal(bridge: Bridge, arguments: list[str]) -> None:
    """Clear a signal of the project; without RECAC_PROJECT_ID, of the project that the current directory is named after."""
    if not arguments:
        raise BridgeError("usage: agent-bridge clear-signal <key>")
    project_id = bridge.project_id if bridge.named else Path.cwd().name or bridge.project_id
    with suppress(NotFound):  # it is already clear
        await bridge.run(signals.Delete(project=project_name(project_id), key=arguments[0]))
    say(f"Signal '{arguments[0]}' cleared for project '{project_id}'.")


async def verify(bridge: Bridge, arguments: list[str]) -> None:
    """Set the status of a request in ui_verification.json, and clear the blocker if no request is left."""
    from coordinator.bridge.verification import FILE, NotJson, update  # noqa: PLC0415

    if len(arguments) < 2:
        raise BridgeError("usage: agent-bridge verify <id> <pass/fail>")
    request, status = arguments[:2]
    try:
        none_left = update(Path(FILE), request, status)
    except NotJson as error:  # as in recac, which prints nothing
        note(f"Warning: {FILE} is not a list of verification requests, so nothing was changed: {error}")
        return
    say(f"UI verification for {request} updated to {status}.")
    if none_left:
        await _clear_blocker(bridge)


async def _clear_blocker(bridge: Bridge) -> None:
    """Clear BLOCKER if it waits for verifications, unless it has changed in the meantime."""
    try:
        found = await bridge.run(signals.Get(project=bridge.project, key="BLOCKER"))
        if not (isinstance(found.value, str) and UI_BLOCKER in found.value):
            return
        await bridge.run(signals.Delete(project=bridge.project, key="BLOCKER", expect=found.version))
    except (NotFound, Conflict):
        return
    say("All UI verifications complete. Clearing blocker.")
