"""Messages: what was said in a session, and windows of it for a model.

await client.messages.append("chat/7", "user", "What is the weather in Paris?")
window = await client.messages.window("chat/7", tokens=5000, complete=True)
answer = ask([message.data for message in window])
await client.messages.extend("chat/7", answer)  # a message, or a list of messages
"""

from __future__ import annotations

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.client.logs import Expected, number_of, written
from coordinator.model.json import text_of
from coordinator.model.log import LogEntry, LogReceipt, NewEntry
from coordinator.model.operation import Json, JsonText
from coordinator.operations import logs, messages

__all__ = ["Messages"]

KIND = "message"


class Messages(Verbs):
    """The conversations of the client's project."""

    async def append(
        self,
        session: str,
        role: str,
        content: Json | JsonText,
        *,
        tokens: int | None = None,
        uid: str | None = None,
        needs: int | None = None,
        expect: Expected = None,
    ) -> LogReceipt:
        """Append a message to a session; the first message creates it.

        ``tokens``: how many tokens of a model the message takes, by default one per four bytes. ``uid`` makes a
        repetition harmless. ``needs``: the number of the earliest message that it needs, or -1 for the previous one, if
        its format does not show this. ``expect``: as for ``logs.append``.

        Raises: ``Conflict`` with the current state in ``detail``, or if the ``uid`` belongs to other content.
        """
        last, epoch = number_of(expect)
        return await self._caller.run(
            messages.Append(
                session=session,
                content=text_of(content),
                role=role,
                tokens=tokens,
                uid=uid,
                needs=needs,
                expect=last,
                epoch=epoch,
                **await self._caller.author(),
            )
        )

    async def extend(self, session: str, *entries: Json | JsonText | NewEntry, expect: Expected = None) -> LogReceipt:
        """Append whole messages to a session, all or none: objects in any format, or a ``NewEntry`` with ``tokens``, ``uid`` or ``needs``.

        A list stands for the messages in it. Raises: as ``logs.append``.
        """
        last, epoch = number_of(expect)
        each = [message for entry in entries for message in (entry if isinstance(entry, list) else [entry])]
        return await self._caller.run(
            logs.Append(
                kind=KIND,
                key=session,
                entries=written(each),
                expect=last,
                epoch=epoch,
                **await self._caller.author(),
            )
        )

    async def window(
        self,
        session: str,
        *,
        last: int | None = None,
        turns: int | None = None,
        tokens: int | None = None,
        complete: bool = False,
    ) -> list[LogEntry]:
        """Return the longest tail of a conversation within ``last`` messages, ``turns`` and ``tokens``, whichever are given.

        It never begins between a tool call and its result, or between reasoning and the message that needs it. A turn
        begins with a message of a user, and so does a window with ``turns``. ``complete`` omits calls without a result,
        results without a call, and messages that need them, since models reject these. The messages themselves are
        ``[message.data for message in window]``.

        Raises: ``NotFound`` if there is no such session.
        """
        return await self._caller.run(
            messages.Window(
                project=self._caller.project, session=session, last=last, turns=turns, tokens=tokens, complete=complete
            )
        )

    def list(
        self, session: str, *, after: str | None = None, last: int | None = None, limit: int = PAGE
    ) -> Listing[LogEntry]:
        """List the messages of a session in their order; with ``last`` only the last ones.

        Raises: as ``logs.read``.
        """
        operation = logs.Read(project=self._caller.project, kind=KIND, key=session, last=last, limit=limit)
        return Listing(self._caller, operation, after)
