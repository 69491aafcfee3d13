"""The database that another program's ``store.type`` and ``store.connection_string`` name, and what they mean for the coordinator."""

from __future__ import annotations

from coordinator.errors import ConfigurationError

__all__ = ["store_url"]

POSTGRES = ("postgres", "postgresql")
SQLITE = ("sqlite", "sqlite3")


def store_url(kind: object, url: object, origin: str) -> tuple[str | None, str | None]:
    """Return the address of a store, if it has one, and a notice for the user.

    ``kind`` is postgres, sqlite or, if it is empty, derived from the address. A SQLite file is not opened: the
    configured coordinator replaces it. ``origin`` is the source of ``kind``.

    Raises: ``ConfigurationError``.
    """
    kind, url = str(kind or "").lower(), str(url or "")
    if kind in POSTGRES:
        if not url:
            raise ConfigurationError(
                "postgres connection string is required", hint="Give postgresql://user@host:5432/database."
            )
        return url, None
    if kind not in (*SQLITE, ""):
        raise ConfigurationError(f"unsupported store type: {kind[:100]}", hint=f"Set {origin} to postgres or sqlite.")
    if not kind and ("://" in url or not url):
        return url or None, None
    return None, f"{origin} is {kind or SQLITE[0]}: the configured coordinator is used, not a SQLite file"
