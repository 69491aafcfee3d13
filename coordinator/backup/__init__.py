"""Backups: made with pg_dump, verified by restoring them, and restored with pg_restore.

Guarantees:

- A backup is a consistent snapshot of the database. Its manifest has a row count and a checksum for each table, computed
  in the same snapshot as the dump.
- An interrupted backup is never mistaken for a good one. It is written under a temporary name, and its manifest is
  written last.
- A verification restores into a separate database, compares everything, and drops that database, whatever happens. If the
  verification is killed, the next one drops the database.
- A restore needs a database without the schema ``coordinator``. No daemon accepts the remains of an interrupted restore.
- In the directory of backups, only files that a manifest names are deleted, and never the last good backup.

Only one backup of a database runs at a time. While it runs, ``schema apply`` waits, and no partition is added or dropped,
because pg_dump's workers lock tables without waiting.

Deliberately absent: other schemas of the database; roles (a restore grants rights again); contents of artifacts in an
object store (the manifest counts them); and point-in-time recovery, for which ``docs/backup.md`` describes pgBackRest.

| module   | content                                                       |
|----------|---------------------------------------------------------------|
| place    | the directory: names, manifests, lists, retention             |
| programs | pg_dump and pg_restore: their choice, and how they run        |
| contents | counts and checksums of a database                            |
| create   | make a backup                                                 |
| load     | restore into a database that has no schema                    |
| verify   | restore into a scratch database and compare                   |
| restore  | restore permanently                                           |
"""
