"""The function of a job type: its parameters, according to its annotations, and its result."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from coordinator.errors import ConfigurationError
from coordinator.model.json import fault_of
from coordinator.model.operation import Json
from coordinator.worker.context import JobContext
from coordinator.worker.end import FailJob, as_json

__all__ = ["Function", "Handler"]

Function = Callable[[JobContext, Any], Awaitable[Any]]

_NULL = msgspec.Raw(b"null")  # the result of most functions
_SHAPE = "Write it as: async def summarize(context: JobContext, payload: Page) -> Summary"


class Handler:
    """A function that runs jobs of one type."""

    def __init__(self, type: str, function: Function) -> None:
        self.type = type
        self.function = function
        self._payload: Any = Any
        name = getattr(function, "__qualname__", repr(function))
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f'{name}, which runs jobs of type "{type}", is not an async function',
                hint=f"{_SHAPE}; run work that blocks with anyio.to_thread.run_sync(…).",
            )
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise ConfigurationError(
                f'{name}, which runs jobs of type "{type}", does not take a context and a payload: {error}', hint=_SHAPE
            ) from None

    def resolve(self) -> None:
        """Look up the type of the payload in the function's annotations, once all modules are imported.

        Raises: ``ConfigurationError``.
        """
        name = list(inspect.signature(self.function).parameters)[1]
        try:
            self._payload = typing.get_type_hints(self.function).get(name, Any)
            if self._payload is not Any:
                msgspec.json.Decoder(self._payload)  # rejects types that msgspec cannot decode
        except (NameError, TypeError) as error:
            raise ConfigurationError(
                f'the type of {name}, the payload of jobs of type "{self.type}", is unusable: {error}',
                hint="Annotate it with a type that msgspec decodes, defined at the top of a module.",
            ) from None

    def payload(self, value: Json) -> Any:
        """Convert a payload to the type of the function's parameter.

        Raises: ``FailJob`` if it does not fit: another attempt would not change that.
        """
        if self._payload is Any:
            return value
        try:
            return msgspec.convert(value, self._payload, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            reason = f"it exceeds the limit {fault}" if (fault := fault_of(value)) else str(error)
            raise FailJob(f"the payload is not of type {_name(self._payload)}: {reason}") from None

    def result(self, value: Any) -> msgspec.Raw:
        """Encode what the function returned.

        Raises: ``FailJob`` if it is not JSON.
        """
        return _NULL if value is None else msgspec.Raw(as_json(value, "the result"))


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
