"""A release that comes after this one, made from a copy of its SQL files: it does what the rules allow."""

from __future__ import annotations

import shutil
from pathlib import Path

from coordinator.db import schema
from coordinator.db.schema import SqlFile

ROOT = Path(__file__).parent.parent.parent
SIGNATURE = "text, text, jsonb, interval, boolean, bigint, uuid, boolean, text"

# A column of a hot table, and a parameter at the end of a function: its signature changes, so the old one is dropped.
EXPAND = f"""
alter table coordinator.signals add column note text;
comment on column coordinator.signals.note is 'A note.';
drop function if exists coordinator.signal_set({SIGNATURE}); -- a new database has none yet
"""


def newest(files: tuple[SqlFile, ...]) -> int:
    return max(int(file.name[:4]) for file in files if file.kind == "migration")


def next_release(folder: Path) -> tuple[SqlFile, ...]:
    """Write the SQL files of the next release into a folder, and read them."""
    sql = folder / "sql"
    shutil.copytree(ROOT / "sql", sql)
    number = newest(schema.files()) + 1
    (sql / "migrations" / f"{number:04}_notes.sql").write_text(EXPAND)
    file = sql / "functions" / "signal.sql"
    old = file.read_text()
    new = old.replace(
        "p_ephemeral boolean default false, p_actor text default null)\nreturns setof coordinator.signals_live",
        "p_ephemeral boolean default false, p_actor text default null, p_note text default null)\nreturns setof coordinator.signals_live",
    )
    new = new.replace(
        f"function coordinator.signal_set({SIGNATURE}) is", f"function coordinator.signal_set({SIGNATURE}, text) is"
    )
    assert new.count("p_note") == new.count(f"{SIGNATURE}, text)") == 1, "signal_set has changed"
    file.write_text(new)
    # One more loop, which the leader of this release does not know.
    process = sql / "functions" / "process.sql"
    old = process.read_text()
    new = old.replace("return array_remove(array[", "return array_remove(array['note_expire',", 1)
    assert new != old
    process.write_text(new)
    return schema.files_in(sql)
