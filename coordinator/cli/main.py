"""The program as a process: it runs a command, and turns the error that ends it into a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise

import click

from coordinator import config
from coordinator.cli import streams
from coordinator.cli.command import Program
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import NobodyReadsError
from coordinator.cli.report import report, report_bug
from coordinator.errors import CoordinatorError
from coordinator.model.hint import with_options
from coordinator.suggestion import nearest
from coordinator.version import version

__all__ = ["main", "program"]

USAGE = 2
INTERRUPTED = 130

# Names of other programs for options of this one.
ELSEWHERE = {
    "--json": "--output json",
    "--format": "--output",
    "--namespace": "--project",
    "--dsn": "--url",
    "--host": "--url",
    "--database": "--url",
    "--force": "--yes",
}


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"coordinator {version()}")
        ctx.exit()


@click.command(cls=Program)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version and exit."
)
def program() -> None:
    """Coordinate fleets of AI agents through PostgreSQL.

    "coordinator serve" starts the daemon, and a private PostgreSQL if no database is configured. Every other command
    connects to the database, or with --url https://… to a daemon. Each command has --help with examples.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and end the process."""
    code = _run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    streams.prepare()
    invocation = Invocation()
    try:
        answer = program.main(arguments, "coordinator", standalone_mode=False, obj=invocation)
    except BaseException as error:  # noqa: BLE001 - the program reports everything as a message
        return _end(error, _form(arguments, invocation), invocation)
    return answer if isinstance(answer, int) else 0


def _form(arguments: list[str], invocation: Invocation) -> str:
    """Return the format of errors, even for a command line that cannot be parsed completely."""
    if "output" in invocation.flags:
        return invocation.flags["output"][1]
    for before, argument in pairwise(["", *arguments]):
        asked = f"--output={argument}" if before in ("-o", "--output") else argument
        if asked in ("--output=text", "--output=json"):
            return asked.removeprefix("--output=")
    return config.output_form()


def _end(error: BaseException, form: str, invocation: Invocation) -> int:
    """Report what ended the program, and return the exit code."""
    if isinstance(error, BaseExceptionGroup):
        error = _leaf(error)
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case NobodyReadsError():
            _discard_output()
            return 0
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.ctx.get_help() if error.ctx else "", err=True)
            return USAGE
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            message, hint = _usage(error)
            report(form, name="usage", code="usage", message=message, hint=hint)
            return USAGE
        case CoordinatorError():
            advice = with_options(error.hint, invocation.whereabouts)
            report(form, name=error.name, code=error.code, message=error.message, hint=advice, detail=error.detail)
            return error.exit_code
        case _:
            report_bug(form, error, trace=config.debugging())
            return 1


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose one of the errors that ended concurrent tasks: a bug, if there is one."""
    leaves: list[BaseException] = []
    groups = [group]
    while groups:
        for inner in groups.pop().exceptions:
            if isinstance(inner, BaseExceptionGroup):
                groups.append(inner)
            else:
                leaves.append(inner)
    bugs = [leaf for leaf in leaves if not isinstance(leaf, (CoordinatorError, KeyboardInterrupt, NobodyReadsError))]
    return (bugs or leaves)[0]


def _usage(error: click.ClickException) -> tuple[str, str]:
    """Return the message and hint for a usage error."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "coordinator"
    hint = f'See "{path} --help".'
    if isinstance(error, click.BadParameter) and isinstance(
        error.param, click.Argument
    ):  # else click lists its choices
        error.param_hint = f"'{error.param.human_readable_name}'"
    message = error.format_message().rstrip(".")
    match error:
        case click.NoSuchOption():
            message = f'unknown option "{error.option_name}"'
            options = [param for param in ctx.command.params if isinstance(param, click.Option)] if ctx else []
            known = [spelling for option in options for spelling in option.opts]
            if close := _meant(error.option_name, known):
                hint = f"Did you mean {close}?"
            elif error.option_name[1:2].isdigit():
                hint = 'Put "--" before a value that begins with "-".'
        case click.exceptions.NoSuchCommand() if ctx:
            message = f'unknown command "{path} {error.command_name}"'
            known = ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []
            if meant := nearest(error.command_name, known):
                hint = f'Did you mean "{path} {meant}"?'
            elif 0 < len(known) <= 20:
                hint = f"Commands: {', '.join(known)}. {hint}"
        case click.MissingParameter() if error.param:
            called = error.param.opts[-1] if isinstance(error.param, click.Option) else error.param.human_readable_name
            message = f"{called} is missing"
            if ctx:
                hint = " ".join(ctx.get_usage().split())
        case _:
            message = message[:1].lower() + message[1:]
            if ctx and "extra argument" in message:
                hint = " ".join(ctx.get_usage().split())
                if any(isinstance(param, click.Argument) for param in ctx.command.params):
                    hint = f"Quote an argument that contains spaces. {hint}"
            hint = getattr(error, "hint", hint)
    return message, hint


def _meant(option: str, known: list[str]) -> str | None:
    """Suggest an option for an unknown one: its long form, the equivalent here, or a similar word."""
    # Options that begin with the given text: "--to-…" before "--too".
    longer = sorted(spelling for spelling in known if len(option) > len("--") and spelling.startswith(option))
    here = [meant for meant in (ELSEWHERE.get(option),) if meant and meant.split()[0] in known]
    words = {_word(spelling): spelling for spelling in known}  # without hyphens, which all options have in common
    similar = nearest(_word(option), words)
    return next(iter([*longer, *here, *([words[similar]] if similar else [])]), None)


def _word(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _discard_output() -> None:
    """Discard output that nobody reads, so that the interpreter does not report an error when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
