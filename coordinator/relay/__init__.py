"""Outbox to log: the daemon's side of events."""
