"""Finds the worker of a program, and runs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import coordinator
from coordinator.cli.invocation import Invocation
from coordinator.errors import ConfigurationError, CoordinatorError
from coordinator.suggestion import nearest
from coordinator.worker import Worker

__all__ = ["find", "run"]

OURS = str(Path(coordinator.__file__).parent)


def find(place: str) -> Worker:
    """Return the worker at ``module:name``; without a name, the only worker of the module. The current directory is searched as well.

    Raises: ``ConfigurationError``.
    """
    module_name, _, name = place.partition(":")
    if module_name.endswith(".py") or not all(part.isidentifier() for part in module_name.split(".")):
        meant = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(
            f'"{place}" is not the name of a module and a worker',
            hint=f"Write it like {meant or 'tasks'}:{name or 'worker'}.",
        )
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = import_module(module_name)
    except Exception as error:
        raise _not_imported(module_name, error) from error
    workers = {found: value for found, value in vars(module).items() if isinstance(value, Worker)}
    if not name and len(workers) == 1:
        return next(iter(workers.values()))
    if name not in workers:
        names = ", ".join(f"{module_name}:{found}" for found in sorted(workers))
        hint = "Define one there: worker = coordinator.Worker()."
        if workers:
            close = nearest(name, workers)
            hint = f"Did you mean {module_name}:{close}?" if close else f"Choose one: {names}."
        wanted = f'a worker called "{name}"' if name else f"{'several workers' if workers else 'a worker'}"
        verb = "contains" if not name and workers else "does not contain"
        raise ConfigurationError(f"module {module_name} {verb} {wanted}", hint=hint)
    return workers[name]


def _not_imported(module_name: str, error: Exception) -> ConfigurationError:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
        return ConfigurationError(
            f"module {error.name} was not found",
            hint="Run the command in the folder that contains it, set PYTHONPATH, or install it in this environment.",
        )
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    said = f"{type(error).__name__}: {message}".splitlines()[0].rstrip(": ")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(OURS)
    ]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else module_name
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    remedy = f"{error.hint} " if isinstance(error, CoordinatorError) and error.hint else ""
    return ConfigurationError(f"module {module_name} cannot be imported: {said}", hint=f"{remedy}See {where}.")


def run(
    call: Invocation,
    worker: Worker,
    *,
    concurrency: int | None,
    queues: Sequence[str],
    labels: Sequence[str],
    agent: str | None,
    ttl: timedelta | None,
    grace: timedelta | None,
) -> None:
    """Run a worker; options of the command line replace its own values."""
    worker.concurrency = worker.concurrency if concurrency is None else concurrency
    worker.queues = [*queues] or worker.queues
    worker.labels = [*labels] or worker.labels
    worker.name = agent or worker.name
    worker.ttl = worker.ttl if ttl is None else ttl
    worker.grace = worker.grace if grace is None else grace
    worker.logs_jobs = True
    config = call.config

    async def work() -> None:
        await worker.run(call.dsn(), project=config.project, config=config)
        if worker.stuck:  # the event loop would wait for these jobs
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    call.serve(work)
