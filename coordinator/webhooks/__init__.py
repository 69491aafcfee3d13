"""Webhooks: what the leading daemon sends, and how."""
