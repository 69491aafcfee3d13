"""Variables for other PostgreSQL servers do not reach the embedded one."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg.connect_utils
import pytest

from coordinator import embedded
from coordinator.db.connection import connect
from tests.embedded.process import QUICK

# What libpq and the server's programs read.
LIBPQ = """
PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGREQUIREAUTH PGCHANNELBINDING PGSERVICE PGSERVICEFILE PGOPTIONS
PGAPPNAME PGSSLMODE PGREQUIRESSL PGSSLNEGOTIATION PGSSLCOMPRESSION PGSSLCERT PGSSLKEY PGSSLCERTMODE PGSSLROOTCERT PGSSLCRL
PGSSLCRLDIR PGSSLSNI PGREQUIREPEER PGSSLMINPROTOCOLVERSION PGSSLMAXPROTOCOLVERSION PGGSSENCMODE PGKRBSRVNAME PGGSSLIB
PGGSSDELEGATION PGCONNECT_TIMEOUT PGCLIENTENCODING PGTARGETSESSIONATTRS PGLOADBALANCEHOSTS PGMINPROTOCOLVERSION
PGMAXPROTOCOLVERSION PGDATESTYLE PGTZ PGGEQO PGSYSCONFDIR PGLOCALEDIR PGDATA PGCTLTIMEOUT PG_COLOR
"""
DRIVER = re.findall(r"['\"](PG[A-Z]+)['\"]", Path(asyncpg.connect_utils.__file__).read_text("utf-8"))
VARIABLES = frozenset((*LIBPQ.split(), *DRIVER))
VALUES = ("hostile", "", "-1", "standby", "verify-full", "/dev/null", "-c default_transaction_isolation=serializable")


async def test_a_server_starts_and_is_reached_whatever_the_variables_say(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "PGTARGETSESSIONATTRS" in DRIVER
    for name in VARIABLES:
        monkeypatch.setenv(name, "hostile")
    async with embedded.run(made, settings=QUICK) as server:
        for value in VALUES:
            for name in sorted(VARIABLES):
                monkeypatch.setenv(name, value)
            connection = await connect(server.dsn)
            try:
                assert await connection.fetchval("select current_user || current_database()") == "coordinator" * 2
                assert await connection.fetchval("show transaction_isolation") == "read committed"
            finally:
                await connection.close()
