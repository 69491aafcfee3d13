"""How commands are made: nouns, their verbs with examples, and the options that stand anywhere on the line.

``coordinator --project shop signal list`` and ``coordinator signal list --project shop`` are the same; the nearer one wins.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click

from coordinator.cli import commands
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import INTEGER

__all__ = ["Noun", "Program", "Verb", "noun", "paged", "setting"]

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def setting(name: str, *spellings: str, hidden: bool = False, **attributes: Any) -> click.Option:
    """Make an option that gives a setting; what is wrong with its value, the settings say."""

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        # Completion parses lines that are not whole, without an invocation to remember anything in.
        if value is None or value is False or not isinstance(ctx.obj, Invocation):
            return
        if name in ("profile", "file"):
            setattr(ctx.obj, name, value)
        else:
            ctx.obj.flags[name] = (param.opts[-1], attributes.get("flag_value") or value)

    return click.Option(spellings, expose_value=False, callback=remember, hidden=hidden, **attributes)


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    def option(name: str, *spellings: str, **attributes: Any) -> click.Option:
        return setting(name, *spellings, hidden=hidden, **attributes)

    path = click.Path(readable=False)
    return [
        option(
            "database_url",
            "--url",
            metavar="URL",
            help="Database, postgresql://…, or daemon, https://…; default: the local database.",
        ),
        option("project", "-p", "--project", metavar="NAME", help='Project; default "default".'),
        option("actor", "--actor", metavar="NAME", help="Who does it, in events; default: the database's role."),
        option("output", "-o", "--output", metavar="text|json", help="Default: text on a terminal, else json."),
        option("profile", "--profile", metavar="NAME", help="Profile of coordinator.yaml."),
        option("file", "--config", metavar="FILE", type=path, help="Default: coordinator.yaml here or in ~/.config."),
        option("data_dir", "--data-dir", metavar="DIR", type=path, help="Where the local database is."),
    ]


class Verb(click.Command):
    """A command that does something; its help ends with examples."""

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

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        formatter.write_paragraph()
        formatter.write_text('Options of every command, such as --project and --output: "coordinator --help".')


class Noun(click.Group):
    """What verbs are about."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, context_settings=HELP, **kwargs)
        self.params += _global_options(hidden=True)

    def verb(
        self, *, examples: Sequence[str], name: str | None = None, settings: Sequence[click.Option] = ()
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Make a function a verb, by its own name without a final underscore."""

        def make(function: Callable[..., Any]) -> click.Command:
            chosen = name or function.__name__.rstrip("_")
            return self.command(chosen, cls=Verb, examples=examples, settings=settings)(function)

        return make


def paged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb that lists the options of a list, ``after`` and ``limit``: see ``Invocation.list``."""
    limit = click.option("--limit", type=INTEGER, metavar="N", help="At most so many; default: all.")
    after = click.option("--after", metavar="CURSOR", help="Go on from the cursor that --limit ended with.")
    return after(limit(function))


def noun(text: str) -> Noun:
    """Make a noun; its name is its file's."""
    return Noun(help=text)


class Program(click.Group):
    """The program: its commands are the files in ``commands/``, imported when they are wanted."""

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
