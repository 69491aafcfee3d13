"""A part of a job's work that is done once: awaited with the function that does it, or used as a block.

page = await context.step("fetch", fetch, url)

async with context.step("fetch") as step:
    if not step.done:
        step.result = await fetch(url)
page = step.result
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Self

import msgspec

from coordinator.model.job_history import JobStep
from coordinator.model.operation import Json
from coordinator.worker.end import as_json

__all__ = ["DurableStep"]


class DurableStep:
    """``done``: an attempt has finished it, and ``result`` is the stored result. Otherwise the block sets ``result``, and its end stores it."""

    __slots__ = ("_find", "_function", "_name", "_ordinal", "_store", "_type", "done", "result")

    def __init__(
        self,
        name: str,
        find: Callable[[], Awaitable[tuple[int, JobStep | None]]],
        store: Callable[[int, Json], Awaitable[JobStep]],
        function: Callable[[], Any] | None,
        type: Any,
    ) -> None:
        self._name = name
        self._find = find
        self._store = store
        self._function = function
        self._type = type
        self._ordinal = 0
        self.done = False
        self.result: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        """Run the function, unless the step is done, and return the result."""
        return self._run().__await__()

    async def __aenter__(self) -> Self:
        """Check whether the step is done."""
        self._ordinal, step = await self._find()
        if step is not None:
            self._finish(step)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Store the result, unless the block raised an exception."""
        if kind is None and not self.done:
            plain: Json = msgspec.json.decode(as_json(self.result, f'the result of step "{self._name}"'))
            self._finish(await self._store(self._ordinal, plain))

    async def _run(self) -> Any:
        if self._function is None:
            raise TypeError(f'step "{self._name}" has no function: give one, or use it with "async with"')
        async with self:
            if not self.done:
                value = self._function()
                self.result = await value if inspect.isawaitable(value) else value
        return self.result

    def _finish(self, step: JobStep) -> None:
        self.done = True
        self.result = msgspec.convert(step.result, self._type, str_keys=True)
