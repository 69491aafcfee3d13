"""Webhooks: the deliveries of the leading daemon."""
