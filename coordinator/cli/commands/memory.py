"""``coordinator memory``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import EMBEDDING, NUMBER, given, read_text
from coordinator.operations import memories

command = noun("Memories: lessons that agents recorded.")

COLUMNS = (
    "memory_id", "lesson", "context", "tool_name", "confidence", "scope", "reinforcements", "superseded_by", "actor", "created_at", "updated_at",
)  # fmt: skip

_memory = click.argument("memory", metavar="ID")
_lesson = click.argument("lesson")


def _parts(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a memory."""
    for option in reversed(
        (
            click.option("--context", metavar="TEXT", help="When the lesson applies."),
            click.option("--tool-name", metavar="TOOL", help="Tool that the lesson is about."),
            click.option("--confidence", type=NUMBER, metavar="N", help="Confidence, 0 to 100.  [default: 50]"),
            click.option(
                "--scope",
                "memory_scope",
                metavar="TEXT",
                help="Agents to which the lesson applies.  [default: all agents]",
            ),
            click.option("--language", metavar="NAME", help="Language of the lesson.  [default: english]"),
            click.option(
                "--embedding", type=EMBEDDING, metavar="JSON", help="Embedding of lesson and context: [0.1, …]."
            ),
        )
    ):
        function = option(function)
    return function


def _selected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select memories."""
    for option in reversed(
        (
            click.option("--scope", "memory_scope", metavar="TEXT", help="Only those of this scope."),
            click.option("--tool-name", metavar="TOOL", help="Only those about this tool."),
            click.option("--superseded", is_flag=True, help="Include superseded memories."),
        )
    ):
        function = option(function)
    return function


@command.verb(
    examples=[
        "coordinator memory record 'Run the migrations before the tests.' --context 'integration tests' --tool-name pytest",
        "coordinator memory record 'The staging database is slow on Mondays.' --confidence 30 --scope ops",
        "cat lesson.txt | coordinator memory record - --scope ops",
    ]
)
@_lesson
@_parts
@click.pass_obj
def record(call: Invocation, /, *, lesson: str, **options: Any) -> None:
    """Record a lesson, and print the id of its memory.

    The same lesson with the same context, tool and scope is one memory. Recording it again raises its confidence; every 90 days without
    that halve it. If LESSON is "-", it is read from standard input.
    """
    memory = call.run(call.operation(memories.Record, lesson=read_text(lesson), **given(options)))
    call.output.one(memory, memory.memory_id)


@command.verb(examples=["coordinator memory supersede $id 'The migrations run automatically.'"])
@_memory
@_lesson
@_parts
@click.pass_obj
def supersede(call: Invocation, /, *, memory: str, lesson: str, **options: Any) -> None:
    """Replace a memory with a new lesson, and print the new id.

    Omitted options keep the values of the old memory. Lists and searches omit the old memory, unless --superseded is given.
    """
    operation = call.operation(memories.Supersede, memory=memory, lesson=read_text(lesson), **given(options))
    made = call.run(operation)
    call.output.one(made, made.memory_id)


@command.verb(examples=["coordinator memory forget 0d24c3e58b54b4760f452ca0fa29a15a"])
@_memory
@click.pass_obj
def forget(call: Invocation, *, memory: str) -> None:
    """Forget a memory."""
    call.run(call.operation(memories.Forget, memory=memory))
    call.output.one({"memory_id": memory, "forgotten": True}, f"forgot {plain(memory)}")


@command.verb(examples=["coordinator memory get 0d24c3e58b54b4760f452ca0fa29a15a"])
@_memory
@click.pass_obj
def get(call: Invocation, *, memory: str) -> None:
    """Show a memory, even if it was superseded. Exit code 3: it does not exist."""
    call.output.one(call.run(memories.Get(project=call.project, memory=memory)))


@command.verb(examples=["coordinator memory list", "coordinator memory list --tool-name pytest --superseded"])
@_selected
@paged
@click.pass_obj
def list_(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """List memories, most recently recorded first."""
    operation = memories.List(project=call.project, **given(options))
    call.list(operation, COLUMNS, after=after, limit=limit, empty="There are no memories.")


@command.verb(
    examples=[
        "coordinator memory search 'flaky tests'",
        "coordinator memory search '\"integration tests\" or pytest -windows' --limit 5",
        "coordinator memory search 'flaky tests' --embedding '[0.12, -0.9, 0.3]'",
    ]
)
@click.argument("words", required=False)
@_selected
@click.option("--language", metavar="NAME", help="Language of the words.  [default: english]")
@click.option("--embedding", type=EMBEDDING, metavar="JSON", help="Embedding of the question, such as [0.1, …].")
@paged
@click.pass_obj
def search(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """Search memories for words, best match first.

    WORDS have the syntax of a web search: word other, "a phrase", or, -without. If there are too many matches, only the newest are
    ranked, and partial is true. With an embedding, both rankings are merged; this needs the extension pgvector.
    """
    operation = memories.Search(project=call.project, **given(options))
    columns = (
        "memory_id", "snippet", "confidence", "context", "tool_name", "scope", "rank", "lesson",
        "superseded_by", "updated_at",
    )  # fmt: skip
    call.list(operation, columns, after=after, limit=limit, empty="No memories match.")
