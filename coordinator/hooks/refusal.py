"""The text of a refusal, for a model: who has the files of a call, until when, and which commands help."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime

from coordinator.hooks.place import Place
from coordinator.hooks.quote import quoted, shortened
from coordinator.model.file import FileGrant, FileState

__all__ = ["RefusalText"]

MOST = 2000  # maximum characters
NAMED = 5  # maximum files that it describes
PATHS = 1100  # maximum characters of their names in a command
WAIT = "90s"  # wait of a command; tools end a command after two minutes


class RefusalText:
    """Describes the files of one call. ``command`` returns the start of a command line for the agent."""

    def __init__(self, place: Place, agent: str, owner: str, command: Callable[[], str]) -> None:
        self._place = place
        self._agent = agent
        self._owner = owner
        self._command = command

    def elsewhere(self, grants: list[FileGrant]) -> str:
        """Name the agents that edit the same files in other work trees."""
        lines = [
            f"{self._called(grant.path, 120)} is also held by {quoted(grant.elsewhere, 200)}."
            for grant in grants
            if grant.elsewhere
        ][:NAMED]
        return f"coordinator: {' '.join(lines)} You can edit it here, but the changes will have to be merged."

    def refusal(self, refused: list[FileGrant], *, shared: bool) -> str:
        """Return the reason: sentences, and then a line for each command, which is never cut."""
        described = [grant for grant in refused if grant.state != FileState.FREE]
        after = []
        if any(grant.state == FileState.STALE for grant in described):
            after.append("Read the changed files again, then repeat the edit; nobody else can edit them meanwhile.")
        if any(grant.state == FileState.FREE for grant in refused):
            after.append("This call leased no files: it leases all of them or none.")
        held = [grant for grant in described if grant.state != FileState.STALE]
        if held:
            after.append("Do not change it by other means. Work on something else first, and try again later.")
        if any(grant.state == FileState.DEADLOCK for grant in held):
            after.append("Others are waiting for files that you hold: finish those first.")
        commands = "".join(f"\n{line}" for line in self._remedies(held, shared=shared)) if held else ""
        end = " ".join(after) + commands
        sentences: list[str] = []
        left = MOST - len(end) - len(f" {len(described)} more files were refused. ")
        for grant in described[:NAMED]:
            sentence = self._sentence(grant)
            left -= len(sentence) + 1
            if left < 0 and sentences:
                break
            sentences.append(sentence)
        if more := len(described) - len(sentences):
            sentences.append(f"{more} more files were refused.")
        return " ".join([*sentences, end])

    def _called(self, resource: str, most: int) -> str:
        """Return the name of a file in the work tree of the session."""
        return quoted(resource.removeprefix(self._place.scoped("path:").removeprefix("path:")), most)

    def _sentence(self, grant: FileGrant) -> str:
        path = self._called(grant.path, 200)
        if grant.state == FileState.STALE:
            who = f" by {quoted(grant.changed_by, 80)} at {_clock(grant.changed_at)}" if grant.changed_by else ""
            return f"{path} was changed{who} since you last read it."
        session = self._owner.partition("/")[0]
        if grant.holder == self._agent and (grant.holder_owner or "").startswith(f"{session}/"):
            which = "a" if self._owner == session else "another"
            who = f"{which} subagent of this session ({quoted(grant.holder_owner, 80)})"
        else:
            who = f"agent {quoted(grant.holder, 80)}"
        about = f" (task: {quoted(grant.holder_task, 120)})" if grant.holder_task else ""
        since = f" since {_clock(grant.held_since)}" if grant.held_since else ""
        within = ""
        if grant.held and grant.held != grant.path:
            held = self._called(grant.held, 120)
            if _is_above(grant.held, grant.path):
                within = f", as part of {held}"
            else:
                path = f"{'The work tree' if grant.path == 'glob:**' else path} contains {held}, which"
        waiting = (grant.waiting or 0) - (grant.ticket is not None)  # excluding this call
        others = f"; {waiting} more {'is' if waiting == 1 else 'are'} waiting for it" if waiting > 0 else ""
        cycle = " Waiting for it would cause a deadlock." if grant.state == FileState.DEADLOCK else ""
        return f"{path} is held by {who}{about}{since}{within}, until {_clock(grant.held_until)}, or longer if it continues{others}.{cycle}"

    def _remedies(self, held: list[FileGrant], *, shared: bool) -> list[str]:
        project, agent = shlex.quote(self._place.project), shlex.quote(self._agent)
        paths = shlex.join(grant.path for grant in held[:NAMED])
        if len(paths) > PATHS:
            paths = shlex.quote(held[0].path)
        command, commands = self._command(), []
        if not any(grant.state == FileState.DEADLOCK for grant in held) and len(paths) <= PATHS:
            mode = " --shared" if shared else ""
            commands.append(
                f"Or wait: {command} lock acquire --project {project} --agent {agent} --owner {shlex.quote(self._owner)}"
                f" --ttl 5m --wait {WAIT}{mode} --root none -- {paths}"
            )
        holder = held[0].holder
        if holder is not None and holder != self._agent:
            asked = f"Please release {shortened(held[0].path, 100)} when you can: {shortened(self._agent, 80)} waits for it."
            commands.append(
                f"Or ask the holder: {command} directive send --project {project} --to-agent {shlex.quote(holder)} {shlex.quote(asked)}"
            )
        return commands


def _is_above(resource: str, path: str) -> bool:
    """Return whether a lock contains the path of another; otherwise, the other one contains it, or they overlap."""
    if resource.startswith("glob:") or path == "glob:**":
        return path != "glob:**"
    return resource.endswith("/") and path.removeprefix("path:").startswith(resource.removeprefix("path:"))


def _clock(at: datetime | None) -> str:
    return "an unknown time" if at is None else f"{at:%H:%M:%S}Z"
