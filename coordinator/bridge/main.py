"""The program as a process: finds the command, runs it, and turns an error into a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from coordinator.bridge.bridge import Bridge, BridgeError, note, plain, with_address
from coordinator.config import debugging
from coordinator.config.bridge import bridge_settings
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable

__all__ = ["main"]

INTERRUPTED = 130
PRIVILEGED = "--privileged"

# Module and function of each command.
COMMANDS = {
    "blocker": ("commands", "blocker"),
    "qa": ("commands", "qa"),
    "manager": ("commands", "manager"),
    "verify": ("commands", "verify"),
    "signal": ("commands", "signal"),
    "clear-signal": ("commands", "clear_signal"),
    "feature": ("features", "feature"),
    "import": ("features", "import_"),
    "observe": ("agents", "observe"),
    "history": ("agents", "history"),
    "lock": ("agents", "lock"),
    "unlock": ("agents", "unlock"),
    "directives": ("agents", "directives"),
    "spec": ("agents", "spec"),
    "import-database": ("takeover", "import_database"),
}

# As recac prints it, also for a missing or unknown command.
USAGE = """\
Usage: agent-bridge <command> [arguments]
Commands:
  blocker <message>      Set a blocker signal
  qa                     Trigger QA process
  manager                Trigger Manager review
  verify <id> <pass/fail> Update UI verification request
  signal <key> <value>   Set a generic signal
  feature set <id> --status <status> --passes <true/false> Update feature status
  feature list           List features (JSON)
"""
HELP = f"""\
{USAGE}\
  signal --privileged <key> <value> Set PROJECT_SIGNED_OFF, TRIGGER_QA or TRIGGER_MANAGER
  clear-signal <key>     Clear a signal of the project
  import                 Save the feature list on standard input (JSON)
  observe <text> [--agent <name>] Record an observation
  history [<count>] [--agent <name>] List the newest observations (JSON)
  lock <path> [--agent <name>] [--wait <duration>] Lock a path for 10 minutes
  unlock <path> [--agent <name>] Release a lock; the agent MANAGER breaks any
  directives [--agent <name>] List open directives (JSON)
  directives done <id> | refused <id> <reason> [--agent <name>] Answer a directive
  spec [set]             Print the specification, or save it from standard input
  import-database <url/file> Take over the tables of a database of recac
Environment: RECAC_DB_URL, RECAC_DB_TYPE, RECAC_PROJECT_ID, RECAC_AGENT_ID, and the settings of coordinator.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and end the process."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    code = _run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads the output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    if next((word for word in arguments if word != PRIVILEGED), "") == "signal":
        privileged = PRIVILEGED in arguments
        arguments = [word for word in arguments if word != PRIVILEGED]
        if privileged:
            arguments.insert(1, PRIVILEGED)
    name, *rest = arguments or [""]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0
    if name not in COMMANDS:
        sys.stdout.write(USAGE)
        return _failed(f"unknown command: {name}" if arguments else "missing command")
    address = None
    try:
        module, function = COMMANDS[name]
        from coordinator.client.brief import finish  # noqa: PLC0415 - not needed for help

        bridge = Bridge(bridge_settings(note))
        address = bridge.address
        command = getattr(import_module(f"coordinator.bridge.{module}"), function)
        url = "" if name == "import-database" else bridge.url  # it may read from PostgreSQL itself
        finish(url, bridge.perform(command, rest))
    except BridgeError as error:
        return _failed(str(error))
    except (ConfigurationError, DatabaseUnavailable) as error:
        return _failed(f"failed to connect to database: {_said(error, address)}")
    except CoordinatorError as error:
        return _failed(f"error executing command: {_said(error, address)}")
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debugging():
            raise
        return _failed(f"this is a bug in coordinator: {type(error).__name__}: {error}")
    return 0


def _said(error: CoordinatorError, address: str | None) -> str:
    return f"{error.message} ({with_address(error.hint, address)})" if error.hint else error.message


def _failed(message: str) -> int:
    sys.stderr.write(f"Error: {plain(message)[:2000]}\n")
    return 1
