"""Run the benchmarks: all, or those named."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio

from bench.place import Options, fresh
from bench.report import Conditions, Table, record
from coordinator.telemetry import logs

NAMES = (
    "signals",
    "latency",
    "snapshot",
    "calls",
    "backlog",
    "gateway",
    "locks",
    "jobs",
    "limits",
    "claims",
    "mcp",
    "hooks",
    "metrics",
    "tracing",
    "audit",
    "webhooks",
    "state.logs",
    "state.documents",
    "state.search",
    "state.artifacts",
    "state.windows",
    "state.state",
    "state.retention",
)
SYSTEM = Path("/usr/lib/postgresql/15/bin")
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Read the command line, run, print, and with --write keep the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(name.rpartition('.')[2] for name in NAMES)}; all by default",
    )
    parser.add_argument(
        "--bin-dir", type=Path, help="the PostgreSQL to use; by default the system's 15, else the embedded one"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of a comparison")
    parser.add_argument("--round-s", type=float, default=5.0, help="seconds of a round")
    parser.add_argument("--snapshot-s", type=float, default=60.0, help="how long the snapshot is held open, in seconds")
    parser.add_argument("--jobs", type=int, default=30_000, help="jobs of a round in a comparison of queues")
    parser.add_argument("--entries", type=int, default=50_000, help="entries that are searched")
    parser.add_argument("--write", action="store_true", help="replace the tables of the same name in bench/RESULTS.md")
    arguments = parser.parse_args()
    places = {name.rpartition(".")[2]: name for name in NAMES}
    unknown = [name for name in arguments.names if name not in places]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(places)}")
    logs.configure(level="warning")
    options = Options(
        bin_dir=arguments.bin_dir or (SYSTEM if (SYSTEM / "postgres").is_file() else None),
        rounds=arguments.rounds,
        round_s=arguments.round_s,
        snapshot_s=arguments.snapshot_s,
        jobs=arguments.jobs,
        entries=arguments.entries,
    )
    # Both sides run on the daemon's own event loop.
    names = [places[name] for name in arguments.names] or NAMES
    anyio.run(_run, names, options, arguments.write, backend_options={"use_uvloop": True})


async def _run(names: Sequence[str], options: Options, write: bool) -> None:
    async with fresh(options) as place:
        conditions = Conditions.now(place.version, place.settings)
    for name in names:
        run: AsyncGenerator[Table] = importlib.import_module(f"bench.{name}").run(options)
        async with aclosing(run) as tables:
            async for table in tables:  # each is kept at once: what follows may fail
                print(table.text(conditions), flush=True)
                if write:
                    record(RESULTS, table, conditions)


if __name__ == "__main__":
    main()
