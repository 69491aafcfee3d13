"""Errors and notices on standard error: two lines for people, or one JSON object for programs."""

from __future__ import annotations

import sys

import msgspec

from coordinator.cli.output import plain

__all__ = ["notice", "report", "report_bug"]

BUG_HINT = "Please report it, with what you did and the output of COORDINATOR_DEBUG=1."


def report(
    form: str, *, name: str, code: str, message: str, hint: str | None = None, detail: str | None = None
) -> None:
    """Write an error; ``form`` is text, json, or auto: text where standard error is a terminal."""
    if form == "json" or (form != "text" and not sys.stderr.isatty()):
        error = {
            "name": name,
            "code": code,
            "message": _sendable(message),
            "hint": None if hint is None else _sendable(hint),
            "detail": _detail(detail),
        }
        sys.stderr.write(msgspec.json.encode({"error": error}).decode() + "\n")
        return
    sys.stderr.write(f"error: {plain(message)}\n")
    if hint:
        sys.stderr.write(f"hint: {plain(hint)}\n")


def notice(form: str, **fields: object) -> None:
    """Write a notice, in the format of errors, about what a command does now; the first field is the message."""
    if form == "json" or (form != "text" and not sys.stderr.isatty()):
        sys.stderr.write(msgspec.json.encode({"notice": fields}).decode() + "\n")
    else:
        sys.stderr.write(f"{plain(str(next(iter(fields.values()))))}\n")
    sys.stderr.flush()


def report_bug(form: str, error: BaseException, *, trace: bool) -> None:
    """Report a bug in the program."""
    if trace:
        import traceback  # noqa: PLC0415

        traceback.print_exception(error)
    message = f"this is a bug in coordinator: {type(error).__name__}: {error}"
    report(form, name="internal", code="XX000", message=message[:1000], hint=BUG_HINT)


def _sendable(text: str) -> str:
    """Escape bytes of the command line that are not UTF-8, since JSON cannot contain them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _detail(detail: str | None) -> object:
    """Decode a detail that is JSON; return other text unchanged."""
    if detail is None:
        return None
    try:
        return msgspec.json.decode(detail)
    except (msgspec.MsgspecError, UnicodeError):
        return _sendable(detail)
