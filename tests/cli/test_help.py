"""Help, completion, and what start-up costs."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from coordinator.cli.command import Noun, Verb
from coordinator.cli.invocation import Invocation
from coordinator.cli.main import program as root
from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S


def verbs(group: click.Group = root, *path: str) -> Iterator[tuple[tuple[str, ...], Verb]]:
    ctx = click.Context(group, info_name="coordinator")
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from verbs(command, *path, name)
        else:
            assert isinstance(command, Verb), f"{path} {name} is not made as the others"
            yield (*path, name), command


VERBS = {" ".join(path): command for path, command in verbs()}


def test_every_noun_and_verb_of_the_design_is_there() -> None:
    assert set(VERBS) >= {
        *(f"project {verb}" for verb in ("create", "list", "show", "delete")),
        *(f"agent {verb}" for verb in ("register", "heartbeat", "deregister", "list")),
        *(f"signal {verb}" for verb in ("set", "get", "list", "delete")),
        *(f"rule {verb}" for verb in ("set", "list", "delete")),
        *(f"directive {verb}" for verb in ("send", "inbox", "acknowledge", "pending", "revoke", "list")),
        *(f"event {verb}" for verb in ("tail", "emit", "head")),
        *(f"schema {verb}" for verb in ("apply", "verify", "status", "print", "grant")),
        *("serve", "sidecar", "config", "help", "status", "completion"),
    }


@pytest.mark.parametrize("path", VERBS)
def test_a_verb_has_help_and_examples_that_parse(path: str) -> None:
    command = VERBS[path]
    assert command.help
    assert command.examples
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{option.opts} has no help"
    used = False
    for example in command.examples:
        words = [word.strip('()"$') for word in shlex.split(example.replace("$(", ""), comments=True)]
        start = words.index(next(word for word in words if word.endswith("coordinator"))) + 1
        end = next((i for i, word in enumerate(words) if i > start and word in ("|", "<", ">", "&&")), len(words))
        line = [word if word != "id" else "00000000-0000-0000-0000-000000000000" for word in words[start:end]]
        if line[: len(path.split())] == path.split():
            used = True
            rest = line[len(path.split()) :]
            with click.Context(root, info_name="coordinator", obj=Invocation()) as parent:
                command.make_context(path, rest, parent=parent)
    assert used, f"no example shows {path}"


@pytest.mark.parametrize("line", [[], *([noun] for noun in sorted({path.split()[0] for path in VERBS if " " in path}))])
def test_80_columns_show_every_summary_whole(lone: Program, line: list[str]) -> None:
    listed = lone.run(*line, "--help", COLUMNS="80").stdout.partition("Commands:")[2].splitlines()
    assert listed
    assert not [summary for summary in listed if summary.endswith("...")]


@pytest.mark.parametrize("path", VERBS)
def test_80_columns_show_the_help_of_every_verb_whole(path: str) -> None:
    shown = VERBS[path].get_help(click.Context(VERBS[path], info_name=f"coordinator {path}", terminal_width=80))
    assert [line for line in shown.splitlines() if len(line) > 80 or line.endswith("...")] == []
    copied = shown.partition("Examples:\n")[2].replace("\\\n", " ")
    for example in VERBS[path].examples:  # a long one is folded, so that it can be copied
        words = example.partition("  # ")[0].split()
        assert " ".join(words) in " ".join(copied.split())


def test_every_noun_follows_the_pattern() -> None:
    ctx = click.Context(root)
    commands = [root.get_command(ctx, name) for name in root.list_commands(ctx)]
    assert all(isinstance(command, (Noun, Verb)) for command in commands)


@pytest.mark.parametrize("line", [["--help"], ["signal", "--help"], ["event", "tail", "--help"], ["serve", "-h"]])
def test_help_is_shown_without_a_database(lone: Program, line: list[str]) -> None:
    done = lone.run(*line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: coordinator")


def test_a_command_line_without_a_command_gets_help(lone: Program) -> None:
    assert "Commands:" in lone.run("signal").stderr
    assert lone.run().returncode == 2
    assert lone.run("--version").stdout.startswith("coordinator ")


def test_the_help_of_a_command_is_also_a_command(lone: Program) -> None:
    for line in ([], ["lock"], ["lock", "run"], ["serve"]):
        done = lone.run("help", *line)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == lone.run(*line, "--help").stdout
    assert lone.fails(2, "help", "lock", "rn")["hint"] == 'Did you mean "coordinator lock run"?'
    assert lone.fails(2, "rule", "zzz")["hint"].startswith("Commands: ")
    assert lone.fails(2, "rule", "list", "zzz")["hint"] == "Usage: coordinator rule list [OPTIONS]"
    assert lone.fails(2, "help", "lock", "run", "x")["message"] == 'unknown command "coordinator lock run x"'


SLOW = (
    "starlette",
    "aiohttp",
    "uvicorn",
    "rich",
    "structlog",
    "coordinator.client.connection",
    "coordinator.daemon",
    "yaml",
)


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        ("--help", (*SLOW, "asyncpg", "asyncio", "prometheus_client")),
        ("signal --help", (*SLOW, "asyncpg", "asyncio", "prometheus_client")),
        ("signal list", (*SLOW, "difflib", "shutil")),
        ("event tail", SLOW),
    ],
)
def test_a_call_imports_nothing_that_it_does_not_need(program: Program, line: str, forbidden: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom coordinator.cli.main import main\n"
        f"try: main({line.split()!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=program.environment,
        timeout=DEADLINE_S,
    )
    loaded = set(done.stderr.split())
    assert "coordinator.cli.main" in loaded
    assert loaded & set(forbidden) == set()


@pytest.mark.parametrize(
    ("shell", "sign"),
    [("bash", "complete -o nosort -F"), ("zsh", "#compdef coordinator"), ("fish", "complete --no-files")],
)
def test_completion_scripts_are_printed(lone: Program, shell: str, sign: str) -> None:
    script = lone.run("completion", shell).stdout
    assert sign in script
    assert "_COORDINATOR_COMPLETE" in script


def test_completion_offers_verbs_and_options(lone: Program) -> None:
    def complete(words: str, current: int) -> str:
        return lone.run(_COORDINATOR_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(current)).stdout

    assert "plain,signal" in complete("coordinator si", 1)
    assert "plain,set" in complete("coordinator signal s", 2)
    assert "plain,--critical" in complete("coordinator --project p signal set --cr", 5)


def test_completion_offers_current_values(program: Program, lone: Program) -> None:
    def complete(words: str, of: Program = program) -> list[str]:
        line = [*words.split(" ")]
        done = of.run(_COORDINATOR_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(line) - 1))
        assert done.stderr == ""
        return [item.partition(",")[2] for item in done.stdout.split()]

    program.constants = {"coordinator.cli.candidates.WITHIN_S": DEADLINE_S}
    agent = program.text("agent", "register", "coder", "--role", "developer", "--ttl", "1h").strip()
    program.json("project", "create", "shop")
    program.json("signal", "set", "build/1", "1")
    program.json("signal", "set", "build/1", "1", "--project", "shop")
    program.json("signal", "set", "deploy/1", "1", "--project", "shop")
    token = program.json("lock", "acquire", "src/a.py", "--agent", agent, "--ttl", "1h")[0]["fencing_token"]
    assert token
    job = program.json("job", "enqueue", "ship", "--queue", "orders", "--key", "acme")["id"]
    program.json("directive", "send", "stop", "--everyone")
    assert complete("coordinator signal get b") == ["build/1"]
    assert complete("coordinator signal get ") == ["build/1"]
    assert complete("coordinator --project shop signal get d") == ["deploy/1"]
    assert complete("coordinator lock release s") == ["src/a.py"]
    assert complete("coordinator lock acquire s") == ["s"]  # as a file, which the shell completes
    assert complete("coordinator lock release src/a.py --agent ") == [agent]
    assert complete("coordinator directive inbox --agent c") == ["coder"]
    assert complete("coordinator directive send x --to-agent ") == ["coder"]
    assert complete("coordinator directive send x --to-role ") == ["developer"]
    assert complete("coordinator directive acknowledge ") == ["1"]
    assert complete("coordinator directive acknowledge 1 --status d") == ["done"]
    assert complete("coordinator project delete s") == ["shop"]
    assert complete("coordinator signal list --project s") == ["shop"]
    assert complete("coordinator rule delete R") == ["REJECTED"]
    assert complete("coordinator event tail --topic signal.s") == ["signal.set"]
    assert complete("coordinator serve --log-level w") == ["warning"]
    assert complete("coordinator token create x --role m") == ["manager"]
    assert complete("coordinator queue pause o") == ["orders"]
    assert complete("coordinator job cancel ") == [job]
    assert complete("coordinator job enqueue s") == ["ship"]
    assert complete("coordinator job enqueue ship --key a") == ["acme"]
    assert complete("coordinator job enqueue ship --lines f") == ["f"]
    assert complete(f"coordinator job claim --agent {agent} --type ") == ["ship"]
    assert complete(f"coordinator job claim --agent {agent} --queue ") == ["orders"]
    assert complete("coordinator signal get b", lone) == []  # there is no database
    program.json("session", "create", "chat/1")
    program.json("document", "put", "note", "first", "1")
    program.json("log", "append", "trace", "second", "1")
    assert complete("coordinator session show ") == ["chat/1"]
    assert complete("coordinator session create ") == []  # a new one
    assert complete("coordinator document get ") == ["note"]
    assert complete("coordinator document get note ") == ["first"]
    assert complete("coordinator document get other ") == []
    assert complete("coordinator log list --prefix s") == ["second"]
    assert complete("coordinator project show s") == ["shop"]
