"""One examination of a database or a daemon: opens connections, runs the checks one after the other, and limits the time of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import anyio
from msgspec.structs import replace

from coordinator.client.http import HttpExecutor
from coordinator.config import Config
from coordinator.db.single import Connection, Single, connected
from coordinator.doctor.checks import CHECKS, Site
from coordinator.doctor.diagnosis import Diagnosis, critical, ok, unknown
from coordinator.errors import CoordinatorError, DatabaseUnavailable, SchemaMismatch
from coordinator.model.address import is_gateway, without_password
from coordinator.model.catalogue import CHECKS as CHECKS_OF_DATABASE
from coordinator.model.doctor import Finding
from coordinator.model.readiness import Readiness
from coordinator.operations import doctor
from coordinator.operations.executor import Runner

__all__ = ["examine"]

CONNECT_S = 5.0
CHECK_S = 5.0
GRACE_S = 1.0  # time for the server to report a timeout itself
TOOK_TOO_LONG = "57014"  # query_canceled
DAEMON, CONNECTION, DATABASE = "daemon", "connection", "database"

_SILENT = "The database stopped responding, so the other checks were skipped."

R = TypeVar("R")


class _OverError(Exception):
    """Nothing else can be examined; the diagnosis says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis


async def examine(dsn: str, direct_dsn: str, config: Config, *, fix: bool = False) -> AsyncIterator[Finding]:
    """Yield the findings about a database, or about a daemon and its database.

    With ``fix``, make the non-destructive repairs for the findings, and repeat the checks: see ``doctor_fix``.
    """
    found = _of_daemon(dsn, config) if is_gateway(dsn) else _of_database(dsn, direct_dsn, config, fix=fix)
    try:
        async for finding in found:
            yield finding
    except _OverError as over:
        yield _finding(DATABASE, over.diagnosis)


async def _of_database(dsn: str, direct_dsn: str, config: Config, *, fix: bool) -> AsyncIterator[Finding]:
    async with AsyncExitStack() as stack:
        own = _impatient(config)
        call, direct = await _opened(stack, dsn, own), await _opened(stack, direct_dsn, own)
        if isinstance(call, CoordinatorError):
            yield _finding(CONNECTION, critical(f"The database cannot be used: {call.message}.", call.hint))
            call, dsn = direct, direct_dsn  # it may bypass a pooler that is down
            if isinstance(call, CoordinatorError):
                raise _OverError(unknown("There is no connection, so the other checks were skipped."))
        else:
            yield _finding(CONNECTION, ok(f"The database responds at {without_password(dsn)}."))
        site = Site(config, call, partial(connected, dsn, own), direct, partial(connected, direct_dsn, own))
        bounds = _Bounds()
        for check in CHECKS:
            yield _finding(check.name, await bounds.run(partial(check.look, site)))
        async for finding in _of_functions(Single(call), bounds, fix=fix):
            yield finding


def _impatient(config: Config) -> Config:
    """Return the settings for the doctor's own calls: short timeouts, and no prepared statements, which works behind every pooler."""
    return replace(config, call_timeout_s=CHECK_S, statement_cache_size=0)


async def _opened(stack: AsyncExitStack, address: str, config: Config) -> Connection | CoordinatorError:
    """Open a connection, or return why it cannot be used."""
    try:
        with anyio.fail_after(CONNECT_S):
            return await stack.enter_async_context(connected(address, config))
    except TimeoutError:
        return DatabaseUnavailable(
            f"no answer from {without_password(address)} within {CONNECT_S:g} seconds",
            hint="Check that the server is running, and that no firewall blocks the connection.",
        )
    except CoordinatorError as error:
        return error


async def _of_daemon(url: str, config: Config) -> AsyncIterator[Finding]:
    async with HttpExecutor.open(url, _impatient(config)) as executor:
        bounds = _Bounds()
        diagnosis = await bounds.run(partial(_readiness, executor))
        yield _finding(DAEMON, diagnosis)
        names = ", ".join(check.name for check in CHECKS)
        where = "Run the doctor on the host of the daemon, with --url postgresql://…"
        yield _finding(CONNECTION, unknown(f"These checks do not work through a daemon: {names}.", where))
        async for finding in _of_functions(executor, bounds, fix=False):
            yield finding


async def _readiness(executor: HttpExecutor) -> Diagnosis:
    try:
        found = await executor.get("/readyz", Readiness, statuses=(200, 503))
    except CoordinatorError as error:
        raise _OverError(critical(f"The daemon cannot be used: {error.message}.", error.hint)) from error
    if not found.ready:
        return critical(f"The daemon is not ready: {found.reason}.", "See the log of the daemon.")
    return ok(f"The daemon is ready{', and leads' if found.leads else ''}.")


async def _of_functions(executor: Runner, bounds: _Bounds, *, fix: bool) -> AsyncIterator[Finding]:
    """Yield the findings of the database's own checks, one call each."""
    for check, fixes in CHECKS_OF_DATABASE.items():
        look = partial(executor.run, doctor.Run(checks=[check]))
        found = await bounds.run(look)
        if fix and fixes and not isinstance(found, Diagnosis) and any(finding.remedy for finding in found):
            done = await bounds.run(partial(executor.run, doctor.Fix(check=check)))
            diagnoses = [done] if isinstance(done, Diagnosis) else [ok(f"Fixed: {deed}.") for deed in done]
            for diagnosis in diagnoses:
                yield _finding(check, diagnosis)
            found = await bounds.run(look)
        for finding in [_finding(check, found)] if isinstance(found, Diagnosis) else found:
            yield finding


def _finding(check: str, diagnosis: Diagnosis) -> Finding:
    return Finding(check, *diagnosis)


class _Bounds:
    """Limits the time of each check, and ends the examination if the database does not respond twice in a row."""

    def __init__(self) -> None:
        self._silent = False

    async def run(self, look: Callable[[], Awaitable[R]]) -> R | Diagnosis:
        """Return the result of a check, or the diagnosis that it failed.

        Raises: ``_OverError``.
        """
        silent, self._silent = self._silent, False
        try:
            with anyio.fail_after(CHECK_S + GRACE_S):
                return await look()
        except SchemaMismatch as error:
            raise _OverError(
                unknown(
                    f"The schema has no doctor, so the other checks were skipped: {error.message}.", 'See "schema".'
                )
            ) from error
        except TimeoutError as error:
            if silent:
                raise _OverError(critical(_SILENT, None)) from error
            self._silent = True
        except DatabaseUnavailable as error:
            if isinstance(error.__cause__, TimeoutError) and not silent:
                self._silent = True
            elif error.code != TOOK_TOO_LONG:
                raise _OverError(critical(f"{_SILENT[:-1]}: {error.message}.", error.hint)) from error
        except CoordinatorError as error:
            return unknown(f"The check failed: {error.message}.", error.hint)
        return unknown(f"The check took longer than {CHECK_S:g} s.", "Run it again when the server is less busy.")
