"""Single calls over HTTP, for programs that make a few calls and end.

aiohttp takes longer to import than such a program runs: see ``brief_connection``.

On failure: a call without a response raises ``DatabaseUnavailable``. A read is repeated once if the kept connection was dead.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from coordinator.client.brief_connection import BriefConnection, BriefResponse, NotHttp, Truncated
from coordinator.client.problem import error_of
from coordinator.client.request_span import outgoing, request_span, status_of
from coordinator.client.wire import Message, including, message_of, result_of
from coordinator.config import Config
from coordinator.errors import ConfigurationError, DatabaseUnavailable
from coordinator.model.operation import Operation
from coordinator.model.position import report
from coordinator.telemetry import tracing

if TYPE_CHECKING:
    from coordinator.operations.positions import Included

__all__ = ["BriefExecutor"]

OK = 200
R = TypeVar("R")


class BriefExecutor:
    """Runs operations over HTTP, one after the other, on one connection; an ``AtLeastRunner``."""

    def __init__(self, url: str, config: Config) -> None:
        parts = urlsplit(url)
        self._url = url
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        self._headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
        if config.token is not None:
            self._headers["Authorization"] = f"Bearer {config.token}"
        self._timeout_s = config.call_timeout_s
        self._ends_at = 0.0
        self._sent = False
        self._connection = BriefConnection(parts, self._left_s)

    async def run(self, operation: Operation[R]) -> R:
        """Run one operation.

        Raises: what the operation raises; ``DatabaseUnavailable`` if no response came.
        """
        with tracing.operation(operation):
            return cast("R", result_of(operation, self._send(message_of(operation), repeatable=operation.reads)))

    async def run_at_least(self, included: Included, operation: Operation[R]) -> R:
        """Run a read that includes a position; the server waits for it.

        Raises: as ``run``.
        """
        with tracing.operation(operation):
            message = including(message_of(operation), included.position)
            return cast("R", result_of(operation, self._send(message, repeatable=True)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, message: Message, *, repeatable: bool) -> bytes:
        self._ends_at = time.monotonic() + self._timeout_s
        kept = self._connection.open
        try:
            try:
                answer = self._traced(message, again=False)
            except ConnectionError:
                if not (kept and repeatable):
                    raise
                self.close()
                answer = self._traced(message, again=True)
        except (OSError, NotHttp, Truncated) as error:
            self.close()
            raise self._unavailable(error) from error
        if answer.status != OK:
            raise error_of(answer.status, answer.body)
        report(answer.position)
        return answer.body

    def _traced(self, message: Message, *, again: bool) -> BriefResponse:
        with request_span(message, self._url, again=again) as span:
            answer = self._attempt(message)
            status_of(span, answer.status)
        return answer

    def _attempt(self, message: Message) -> BriefResponse:
        connection = self._connection
        headers = outgoing()
        if message.content is not None:
            headers["Content-Type"] = "application/json"
        self._sent = False
        if not connection.open:
            connection.connect()
        self._sent = True
        try:
            return connection.exchange(
                message.method, self._prefix + message.path, self._headers | headers, message.content
            )
        except ValueError:
            raise ConfigurationError(
                "the token or the address holds a character that HTTP cannot carry",
                hint="Copy the whole token, and nothing else.",
            ) from None

    def _left_s(self) -> float:
        return max(self._ends_at - time.monotonic(), 0.001)

    def _unavailable(self, error: OSError | NotHttp | Truncated) -> DatabaseUnavailable:
        hint = (
            "A write may or may not have succeeded."
            if self._sent
            else "Is the server running, and is the address correct?"
        )
        if isinstance(error, TimeoutError):
            reason = f"no complete response within {self._timeout_s:.1f} seconds"
        elif self._url.startswith("https:") and not self._sent:
            reason, hint = _refused(error, hint)
        elif isinstance(error, Truncated):
            reason = "the connection was lost in the middle of the response"
        elif isinstance(error, NotHttp):
            reason = f"the response is not HTTP: {error!s:.100}"
        else:
            reason = error.strerror or str(error)
        return DatabaseUnavailable(f"no response from {self._url}: {reason}", hint=hint)


def _refused(error: OSError | NotHttp | Truncated, hint: str) -> tuple[str, str]:
    """Return why no TLS connection was made, and what to check."""
    import ssl  # noqa: PLC0415 - slow to import, and loaded by now

    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {error.verify_message}",
            "SSL_CERT_FILE names a file with the trusted authorities.",
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.strerror}", "Does that port speak HTTPS?"
    return getattr(error, "strerror", None) or str(error), hint
