"""Descriptions of tools, where the operation's own description mentions something that is not offered to a model, or that only programs need."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["WORDS"]

WORDS: Mapping[str, str] = {
    "lock_acquire": """\
Lock resources, all or none, so that nobody else changes them: files and directories (src/app.py, src/), or names \
(name:deploy). Lock what you are about to edit. The locks are yours until you release them or your session ends: they are \
renewed meanwhile. With `wait`, queue for up to this long if somebody holds one. With `shared`, others may hold it shared as \
well. Keep the fencing_token of each: lock_release takes it.

Errors: `Conflict`, which names who holds it and until when, or the cycle if waiting would be a deadlock.""",
    "lock_release": """\
Release locks, all or none, and hand them to the next waiters. `tokens` has the fencing_token of each resource, or one for all.

Errors: `Conflict` if one of them is lost; if the response to an earlier release was lost, that release succeeded.""",
    "message_append": """\
Append a message to a session; the first one creates it.

With `role`, `content` is what is said; without it, a whole message: an object of any shape. `tokens`: how many tokens of a \
model it takes, else a token for four bytes. `uid` makes a repetition harmless. `needs`: the number of the earliest message \
without which it is nothing, or -1 for the one before it. `expect` is the number of the last message that the session must \
have now, and `epoch` the epoch of that message; 0 if it must have none.

Errors: `Conflict` with what is there in `facts`, or if the `uid` belongs to other content.""",
    "document_item": """\
Merge an object into one item of a list in a document, found by its id, in one call.

Concurrent calls lose nothing, and no caller needs to read first. `path` leads to the list; by default it is where todo lists and \
features have theirs, else the document itself. `field` is the key of the ids; the id 3 matches `3` and `"3"`. `expect` is the \
version that the document must have now, and `epoch` the epoch of that version.

Errors: `NotFound` without such an item (`ZC219`); `Conflict` if several have the id (`ZC333`), or with the current version and \
epoch in `facts`.""",
    "document_delete": """\
Delete a document. Its versions stay for 7 days, in which document_get reads them by number. `expect` is the version that it \
must have now, and `epoch` the epoch of that version.

Errors: `NotFound`; `Conflict` with the current version and epoch in `facts`.""",
    "memory_record": """\
Record a lesson, or reinforce the memory that has it already, with the same context, tool and scope.

`confidence` is 0 to 100. It is halved for every 90 days without another record; a record combines what is left of it, a, \
with the new one, b: 100 - (100 - a) * (100 - b) / 100.""",
    "memory_search": """\
Search memories for `words`; with `superseded` also those that were superseded.

`words` are as in a web search: word other, "a phrase", or, -without. The rank is that of the words times the confidence.

Errors: `InvalidArgument` for words that every text contains, and an unknown language.""",
    "knowledge_put": """\
Put an entry of knowledge, which replaces the one with its key.

`title` is by default the key. `language` is that in which the words are searched: english, german, or simple for any other. \
`expect` and `epoch` are the version and epoch that it must have now; 0 if it must not exist.

Errors: `Conflict` with the current version in `facts`: read it and decide again.""",
    "knowledge_search": """\
Search knowledge for `words`; from a source, or with these members in the metadata.

`words` are as in a web search: word other, "a phrase", or, -without.

Errors: `InvalidArgument` for words that every text contains, and an unknown language.""",
    "job_show": """\
Read a job.

Errors: `NotFound` if there is no such job, or it was pruned after its end.""",
}
