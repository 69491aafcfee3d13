"""Commands: nouns, their verbs with examples, and options that are accepted anywhere on the command line.

``coordinator --project shop signal list`` and ``coordinator signal list --project shop`` are equivalent. The last
option wins.
"""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coordinator.cli import commands
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import AGENT, DURATION, INTEGER
from coordinator.config import SETTINGS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "Noun",
    "Program",
    "Verb",
    "acting_agent",
    "agent_settings",
    "agent_ttl",
    "confirm",
    "log_settings",
    "noun",
    "paged",
    "setting",
    "worker",
]

AGENT_ID = SETTINGS["agent_id"].variable
F = TypeVar("F", bound=Callable[..., Any])

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def setting(name: str, *spellings: str, hidden: bool = False, **attributes: Any) -> click.Option:
    """Make an option that sets a setting; its help and metavar come from the declaration of the setting."""
    if declared := SETTINGS.get(name):
        attributes.setdefault("metavar", "|".join(declared.choices) or declared.unit.upper())
        attributes.setdefault("help", f"{declared.help}.  [default: {declared.default_text}]")

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        # Completion parses unfinished lines without an invocation.
        if value is None or value is False or not isinstance(ctx.obj, Invocation):
            return
        if name in ("profile", "file", "wide", "at_least", "position"):
            setattr(ctx.obj, name, value)
        else:
            ctx.obj.flags[name] = (param.opts[-1], attributes.get("flag_value") or value)

    # Eager, because the types and defaults of other parameters use settings.
    return click.Option(spellings, expose_value=False, callback=remember, hidden=hidden, is_eager=True, **attributes)


def log_settings() -> list[click.Option]:
    """Make the options of a program that logs."""
    return [setting("log_format", "--log-format"), setting("log_level", "--log-level")]


def agent_settings() -> list[click.Option]:
    """Make the options of a program that keeps one agent alive."""
    upstream = setting("database_url", "--upstream", help="Daemon to connect to, https://…; same as --url.")
    return [setting("agent", "--agent"), setting("role", "--role"), upstream, *log_settings()]


@cache  # shared by all commands, because it is slow
def _global_options(*, hidden: bool) -> tuple[click.Option, ...]:
    def option(name: str, *spellings: str, **attributes: Any) -> click.Option:
        return setting(name, *spellings, hidden=hidden, **attributes)

    path = click.Path(readable=False)
    return (
        option("database_url", "--url"),
        option("project", "-p", "--project"),
        option("actor", "--actor"),
        option("output", "-o", "--output"),
        option("wide", "--wide", is_flag=True, help="Show all columns of a table, and full cells."),
        option(
            "at_least",
            "--at-least",
            metavar="POSITION",
            help="Wait up to 5 seconds until reads include this position.",
        ),
        option(
            "position",
            "--position",
            is_flag=True,
            help="Print the position of a change, for --at-least, instead of its result.",
        ),
        option("profile", "--profile", metavar="NAME", help="Profile of coordinator.yaml."),
        option(
            "file",
            "--config",
            metavar="FILE",
            type=path,
            help="File with profiles.  [default: ./coordinator.yaml, ~/.config/coordinator/coordinator.yaml]",
        ),
        option("data_dir", "--data-dir", type=path),
    )


def _candidates(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from coordinator.cli.candidates import complete  # noqa: PLC0415 - imports all operations

    return complete(ctx, param, incomplete)


class Verb(click.Command):
    """A command whose help ends with examples."""

    def __init__(
        self,
        name: str | None,
        *,
        examples: Sequence[str] = (),
        settings: Sequence[click.Option] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(name, context_settings=HELP, **kwargs)
        self.examples = examples
        own = {spelling for option in settings for spelling in option.opts}
        general = [option for option in _global_options(hidden=True) if not own & set(option.opts)]
        self.params += [*settings, *general]
        for param in self.params:
            param._custom_shell_complete = _candidates  # noqa: SLF001 - here, instead of as an argument of each parameter

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                for line in _folded(example, formatter.width - formatter.current_indent):
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        formatter.write_paragraph()
        formatter.write_text('"coordinator --help" lists the options of every command, such as --project and --output.')


class CommandVerb(Verb):
    """A verb with a command after ``--``, which is not parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[__name__] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARG]…"]

    @staticmethod
    def words(ctx: click.Context) -> list[str]:
        """Return the command and its arguments.

        Raises: ``UsageError`` if there is none.
        """
        if words := ctx.meta[__name__]:
            return list(words)
        raise click.UsageError("give a command after --")


def _folded(example: str, width: int) -> list[str]:
    """Break an example that is too long between its options, so that it can be copied; its comment comes first."""
    if len(example) <= width:
        return [example]
    command, _, comment = (part.strip() for part in example.partition("  # "))
    lines = [f"# {comment}"] if comment else []
    line, *parts = re.split(r" (?=--|\| |> |'\{)", command)
    for part in parts:
        if len(line) + len(part) + 3 > width:
            lines.append(f"{line} \\")
            line = f"  {part}"
        else:
            line += f" {part}"
    return [*lines, line]


class Noun(click.Group):
    """A group of verbs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, context_settings=HELP, **kwargs)
        self.params += _global_options(hidden=True)

    def verb(
        self, *, examples: Sequence[str], name: str | None = None, settings: Sequence[click.Option] = ()
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Make a function a verb, named after the function without a final underscore."""

        def make(function: Callable[..., Any]) -> click.Command:
            chosen = name or function.__name__.rstrip("_")
            return self.command(chosen, cls=Verb, examples=examples, settings=settings)(function)

        return make


def paged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of ``Invocation.list`` to a verb: ``after``, ``limit``, and the maximum age of the list."""
    limit = click.option("--limit", type=INTEGER, metavar="N", help="Maximum number of rows.  [default: all]")
    after = click.option(
        "--after", metavar="CURSOR", help="Start after this cursor, which a list with --limit printed."
    )
    return after(limit(_max_lag(function)))


def _max_lag(function: Callable[..., Any]) -> Callable[..., Any]:
    def remember(ctx: click.Context, _param: click.Parameter, value: timedelta | None) -> None:
        if value is not None and isinstance(ctx.obj, Invocation):
            ctx.obj.max_lag = value

    text = (
        "Let the replica of a daemon serve the list if its data is at most this old.  [default: the primary serves it]"
    )
    option = click.option(
        "--max-lag", type=DURATION, metavar="DURATION", expose_value=False, callback=remember, help=text
    )
    return option(function)


def worker(function: F) -> F:
    """Add the options that determine which jobs an agent accepts: ``job_types`` and ``labels``."""
    types = click.option(
        "--job-type", "job_types", multiple=True, metavar="TYPE", help="Accept jobs of this type; repeatable."
    )
    labels = click.option(
        "--label", "labels", multiple=True, metavar="LABEL", help="Accept jobs that require this label; repeatable."
    )
    return types(labels(function))


def agent_ttl(function: F) -> F:
    """Add the option for how long the agent of a program outlasts its last heartbeat: ``ttl``."""
    text = "Reap the agent after this long without a heartbeat."
    return click.option("--ttl", type=DURATION, default="30s", show_default=True, help=text)(function)


class NoAgentError(click.UsageError):
    """No agent is named."""

    hint = f'Give the name of an agent, or the id that "coordinator agent register" printed, or set {AGENT_ID}.'

    def __init__(self, ctx: click.Context, param: click.Parameter) -> None:
        called = param.opts[-1] if isinstance(param, click.Option) else "the agent's name or id"
        super().__init__(f"{called} is missing", ctx)


def acting_agent(
    *,
    help: str | None = None,
    type: click.ParamType[Any] = AGENT,
    metavar: str = "ID|NAME",
    required: bool = True,
) -> Callable[[F], F]:
    """Make the option ``--agent`` or, without ``help``, the argument for the acting agent.

    Its default is the setting ``agent_id``, which ``lock run`` sets for its command.
    """

    def chosen(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None and isinstance(ctx.obj, Invocation) and not ctx.resilient_parsing:
            given = ctx.obj.config.agent_id
            if given is not None:
                return type.convert(given, param, ctx)
            if required:
                raise NoAgentError(ctx, param)
        return value

    if help is None:
        return click.argument("agent", type=type, callback=chosen, metavar=f"[{metavar}]", required=False)
    return click.option("--agent", type=type, callback=chosen, metavar=metavar, help=f"{help}  [default: {AGENT_ID}]")


def confirm(question: str, *, yes: bool, deed: str = "delete it") -> None:
    """Ask before something is deleted or changed, unless ``yes`` is set.

    Raises: ``click.UsageError`` if nobody can be asked; ``click.Abort`` if the user declines.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"give --yes to {deed} without being asked")
    click.confirm(question, abort=True, err=True)


def noun(text: str) -> Noun:
    """Make a noun, named after its file."""
    return Noun(help=text)


class Program(click.Group):
    """The program. Its commands are the files in ``commands/``, each imported when it is used."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, context_settings=HELP, **kwargs)
        self.params += _global_options(hidden=False)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(f"{commands.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a file that does not follow the pattern
        command.name = cmd_name
        return command
