"""Backups: made with pg_dump, verified by restoring them, and restored with pg_restore.

Guarantees:

- A backup is one moment of the database. Its manifest has the count and a checksum of the rows of each table, computed in the snapshot of
  the dump itself.
- A backup that was interrupted is never taken for a good one. It is written under a temporary name, and its manifest comes last.
- A verification restores into a database of its own, compares everything, and drops that database, whatever happened. If it is killed, the
  next one drops it.
- A restore needs a database without the schema ``coordinator``. No daemon accepts what an interrupted restore leaves.
- Nothing is deleted in the directory of backups except what a manifest of ours names, and never the last good backup.

One backup of a database runs at a time. While it runs, ``schema apply`` waits, and no partition is added or dropped: pg_dump's workers lock
tables without waiting.

Deliberately absent: what else is in the database (only the schema ``coordinator`` is ours), roles (a restore grants again), contents of
artifacts in an object store (the manifest counts them), and recovery to an instant, for which ``docs/backup.md`` has pgBackRest.

| module   | content                                                       |
|----------|---------------------------------------------------------------|
| place    | the directory: names, manifests, lists, retention             |
| programs | pg_dump and pg_restore: which, and how they run               |
| contents | counts and checksums of a database                            |
| create   | make a backup                                                 |
| load     | restore into a database that has no schema                    |
| verify   | restore into a scratch database and compare                   |
| restore  | restore for good                                              |
"""
