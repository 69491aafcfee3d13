"""The program that `tests.daemon` starts: `python -m tests.daemon_process <settings as JSON>`.

Secrets among the settings may come from an environment, as `variables`. The program runs one daemon, logs JSON to
standard error, and exits with the code of the error table. It imports little besides the product, since the suite
starts it often.
"""

from __future__ import annotations

import json
import sys

import anyio
import msgspec

from coordinator.config import SETTINGS, Config, load
from coordinator.daemon import serve
from coordinator.errors import CoordinatorError
from coordinator.telemetry import logs


async def main(settings: str) -> int:
    given = json.loads(settings)
    variables = given.pop("variables", None)
    config = msgspec.convert(given, Config, strict=False, dec_hook=lambda kind, value: kind(value))
    if variables:
        loaded = load(environment=variables)
        names = [name for name, setting in SETTINGS.items() if setting.secret and getattr(loaded, name) is not None]
        config = msgspec.structs.replace(config, **{name: getattr(loaded, name) for name in names})
    logs.configure(format="json", level=config.log_level, slow_call_s=config.slow_call_s)
    try:
        await serve(config)
    except CoordinatorError as error:
        json.dump(
            {"event": "daemon.failed", "error": type(error).__name__, "message": str(error), "hint": error.hint},
            sys.stderr,
        )
        sys.stderr.write("\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(anyio.run(main, sys.argv[1], backend_options={"use_uvloop": True}))
