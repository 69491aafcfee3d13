"""``coordinator knowledge``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import EMBEDDING, INTEGER, OBJECT, given, read_text
from coordinator.operations import knowledge

command = noun("Knowledge: texts with a title and a source.")

_key = click.argument("key")
_source_type = click.option("--source-type", metavar="TEXT", help="Kind of source, such as url or file.")
_source_url = click.option("--source-url", metavar="URL", help="Address of the source.")
_metadata = click.option(
    "--metadata",
    type=OBJECT,
    metavar="JSON",
    help='An object such as {"team": "core"}; searches can filter by its members.',
)


def _expected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which version must be there."""
    expect = click.option(
        "--expect", type=INTEGER, metavar="VERSION", help="Only at this version; 0: only if it is absent."
    )
    epoch = click.option("--epoch", metavar="EPOCH", help="Epoch that was read with the version.")
    return expect(epoch(function))


@command.verb(
    examples=[
        "cat docs/rollback.md | coordinator knowledge put runbooks/rollback - --title 'Roll back'",
        "coordinator knowledge put glossary/lane 'A lane has the jobs of one key.' --metadata '{\"team\": \"core\"}'",
    ]
)
@_key
@click.argument("content")
@click.option("--title", metavar="TEXT", help="Title; its words count more in searches.  [default: KEY]")
@_source_type
@_source_url
@_metadata
@click.option("--language", metavar="NAME", help="Language of the content.  [default: english]")
@click.option("--embedding", type=EMBEDDING, metavar="JSON", help="Embedding of title and content: [0.1, …].")
@_expected
@click.pass_obj
def put(call: Invocation, /, *, key: str, content: str, **options: Any) -> None:
    """Store an entry, and replace the one with the same key.

    If CONTENT is "-", it is read from standard input.
    """
    entry = call.run(call.operation(knowledge.Put, key=key, content=read_text(content), **given(options)))
    call.output.one(entry, f"{plain(key)} is at version {entry.version}")


@command.verb(
    examples=[
        "coordinator knowledge get runbooks/rollback",
        "coordinator knowledge get runbooks/rollback | jq -r .content",
    ]
)
@_key
@click.pass_obj
def get(call: Invocation, *, key: str) -> None:
    """Show an entry. Exit code 3: it does not exist."""
    call.output.one(call.run(knowledge.Get(project=call.project, key=key)))


@command.verb(examples=["coordinator knowledge list", "coordinator knowledge list --source-type file --limit 20"])
@_source_type
@_source_url
@_metadata
@paged
@click.pass_obj
def list_(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """List entries, most recently changed first."""
    operation = knowledge.List(project=call.project, **given(options))
    columns = (
        "key", "title", "source_type", "source_url", "metadata", "version", "updated_at", "content", "language",
        "actor", "created_at",
    )  # fmt: skip
    call.list(operation, columns, after=after, limit=limit, empty="There is no knowledge.")


@command.verb(
    examples=["coordinator knowledge delete runbooks/rollback", "coordinator knowledge delete glossary/lane --expect 2"]
)
@_key
@_expected
@click.pass_obj
def delete(call: Invocation, /, *, key: str, **options: Any) -> None:
    """Delete an entry."""
    call.run(call.operation(knowledge.Delete, key=key, **given(options)))
    call.output.one({"key": key, "deleted": True}, f"deleted {plain(key)}")


@command.verb(
    examples=[
        "coordinator knowledge search 'roll back'",
        'coordinator knowledge search \'"release branch" or tag -beta\' --metadata \'{"team": "core"}\' --limit 5',
    ]
)
@click.argument("words", required=False)
@_source_type
@_source_url
@_metadata
@click.option("--language", metavar="NAME", help="Language of the words.  [default: english]")
@click.option("--embedding", type=EMBEDDING, metavar="JSON", help="Embedding of the question, such as [0.1, …].")
@paged
@click.pass_obj
def search(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """Search the entries for words, best match first.

    WORDS have the syntax of a web search: word other, "a phrase", or, -without. If there are too many matches, only the newest are
    ranked, and partial is true. With an embedding, both rankings are merged; this needs the extension pgvector.
    """
    operation = knowledge.Search(project=call.project, **given(options))
    columns = (
        "key", "title", "snippet", "rank", "source_type", "source_url", "metadata", "updated_at", "language",
        "version", "actor",
    )  # fmt: skip
    call.list(operation, columns, after=after, limit=limit, empty="No knowledge matches.")
