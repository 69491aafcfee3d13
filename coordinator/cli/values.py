"""Types of arguments. A malformed value raises ``InvalidArgument``, as in the server: exit code 5."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import click
import msgspec

from coordinator.cli import resource
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import InvalidArgument
from coordinator.model import duration
from coordinator.model.agent_ref import AgentRef, agent_ref
from coordinator.model.json import text_of, value_of
from coordinator.model.operation import Json, JsonText

__all__ = [
    "AGENT",
    "COST",
    "DURATION",
    "EMBEDDING",
    "ID",
    "INSTANT",
    "INTEGER",
    "JOB",
    "NUMBER",
    "OBJECT",
    "PATH",
    "RESOURCE",
    "WEIGHT",
    "given",
    "read_exact",
    "read_json",
    "read_text",
]

MAX_INPUT_BYTES = 8 << 20  # values are never larger


_NUMBERED = re.compile(r"[0-9.]+[a-z0-9.]*")  # a duration; a date contains a dash


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return duration.parse(str(value))
        except ValueError as error:
            raise InvalidArgument(f"{_called(param)}: {error}", hint=duration.HINT) from None
        except OverflowError:
            raise InvalidArgument(
                f"{_called(param)}: {value} is out of range", hint="The maximum is 366 days."
            ) from None


class _Integer(click.ParamType[int]):
    name = "number"

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidArgument(f'{_called(param)}: "{text}" is not a whole number', hint="Give a number such as 7.")
        if len(digits) > 18:
            raise InvalidArgument(f"{_called(param)}: {text[:100]} is out of range", hint="Give a smaller number.")
        return int(text)


class _Number(click.ParamType[float]):
    name = "number"

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> float:
        try:
            return float(str(value))
        except ValueError:
            raise InvalidArgument(
                f'{_called(param)}: "{value}" is not a number', hint="Give a number such as 7.5."
            ) from None


class _Id(click.ParamType[UUID]):
    name = "id"

    def __init__(self, what: str, hint: str) -> None:
        self._what = what
        self._hint = hint

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> UUID:
        try:
            return value if isinstance(value, UUID) else UUID(str(value))
        except ValueError:
            raise InvalidArgument(f'{_called(param)}: "{value}" is not {self._what}', hint=self._hint) from None


class _NameOrId(click.ParamType[AgentRef]):
    name = "agent"

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> AgentRef:
        if isinstance(value, UUID):
            return value
        text = str(value)
        if not text.isprintable() or not text:
            raise InvalidArgument(
                f'{_called(param)}: "{text}" is not the name or id of an agent',
                hint='See "coordinator agent list".',
            )
        return agent_ref(text)


class _Resource(click.ParamType[str]):
    name = "resource"

    def __init__(self, *, literal: bool = False) -> None:
        self._literal = literal

    def convert(self, value: object, _param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if ctx is None or not isinstance(ctx.obj, Invocation):  # completion
            return text
        found = resource.spelled(text, ctx.obj.config, literal=self._literal)
        if found != text:
            ctx.obj.output.note(f'"{plain(text)}" means {plain(found)}')
        return found


class _Instant(click.ParamType[datetime]):
    """An instant, or the time from now."""

    name = "instant"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            if _NUMBERED.fullmatch(text):
                return datetime.now(UTC) + DURATION.convert(text, param, ctx)
            return datetime.fromisoformat(text).astimezone()
        except OverflowError:
            raise InvalidArgument(
                f"{_called(param)}: {text} is out of range", hint="The maximum is 366 days."
            ) from None
        except ValueError:
            raise InvalidArgument(
                f'{_called(param)}: invalid time "{text}"',
                hint="Write 2030-01-31T14:00Z, or 10m for ten minutes from now.",
            ) from None


class _Embedding(click.ParamType[list[float]]):
    name = "json"

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            return msgspec.convert(read_json(read_text(str(value)), _called(param), "[0.1, -0.2]"), list[float])
        except msgspec.ValidationError:
            raise InvalidArgument(f"{_called(param)}: not a list of numbers", hint="Give [0.1, -0.2, …].") from None


class _Object(click.ParamType[dict[str, Json]]):
    name = "json"

    def convert(self, value: object, param: click.Parameter | None, _ctx: click.Context | None) -> dict[str, Json]:
        if isinstance(value, dict):
            return value
        found = read_json(read_text(str(value)), _called(param))
        if not isinstance(found, dict):
            raise InvalidArgument(f"{_called(param)}: not a JSON object", hint='Give {"key": "value"}.')
        return found


def _called(param: click.Parameter | None) -> str:
    if param is None:
        return "the value"
    return (
        param.opts[-1]
        if isinstance(param, click.Option)
        else param.make_metavar(click.Context(click.Command(""))).strip("[]")
    )


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given: for the others, the operation has its own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def read_json(text: str, called: str, example: str = '{"key": "value"}') -> Json:
    """Decode JSON; an error shows the example.

    Raises: ``InvalidArgument``.
    """
    try:
        return cast("Json", msgspec.json.decode(text))
    except (msgspec.MsgspecError, UnicodeError) as error:
        fault = str(error).removeprefix("JSON is malformed: ")
        where = "" if called == "JSON" else f"{called}: "
        raise InvalidArgument(f"{where}invalid JSON: {fault}", hint=f"Quote it for the shell: '{example}'.") from None
    except RecursionError:
        raise InvalidArgument(f"{called}: JSON is nested too deeply", hint="Use fewer levels.") from None


def read_value(text: str, form: str = "") -> Json:
    """Return a value: JSON if it parses as JSON, otherwise text. With ``form`` json or text, accept only that.

    Raises: ``InvalidArgument``.
    """
    if form == "text":
        return text
    try:
        return read_json(text, "VALUE")
    except InvalidArgument:
        if form == "json":
            raise
        return text


def read_exact(text: str, form: str = "") -> JsonText:
    """Return a value as ``read_value`` does, but as text: JSON keeps its exact text.

    Raises: ``InvalidArgument``.
    """
    if form != "text":
        try:
            value_of(exact := JsonText(text.encode()))
        except (ValueError, RecursionError):  # also msgspec.DecodeError
            if form == "json":
                read_json(text, "DATA")
        else:
            return exact
    return text_of(text)


def read_text(argument: str) -> str:
    """Return an argument or, for ``-``, the content of standard input.

    Raises: ``InvalidArgument``.
    """
    if argument != "-":
        return argument
    content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        raise InvalidArgument(
            f"standard input is longer than {MAX_INPUT_BYTES} bytes",
            hint="Store large data elsewhere, and share its address.",
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(
            "standard input is not UTF-8", hint="Encode binary data, for instance with base64."
        ) from None


class _Weight(click.ParamType[tuple[str, int]]):
    name = "weight"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        key, equals, number = str(value).rpartition("=")
        if not equals:
            raise InvalidArgument(f'{_called(param)}: "{value}" has no weight', hint="Write KEY=N, such as acme=3.")
        return key, INTEGER.convert(number, param, ctx)


class _Cost(click.ParamType[tuple[str, int | None]]):
    name = "cost"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int | None]:
        name, equals, number = str(value).rpartition("=")
        return (name, INTEGER.convert(number, param, ctx)) if equals else (number, None)


DURATION, INSTANT, INTEGER, NUMBER, OBJECT = _Duration(), _Instant(), _Integer(), _Number(), _Object()
EMBEDDING = _Embedding()
ID = _Id("a UUID", "Give an id such as 5c6d032f-ca00-44ad-a17a-cf72f2a0acf7.")
JOB = _Id("the id of a job", 'Give the UUID that "coordinator job enqueue" printed.')
AGENT = _NameOrId()
WEIGHT = _Weight()
COST = _Cost()
RESOURCE, PATH = _Resource(), _Resource(literal=True)
