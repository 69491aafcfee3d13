"""What operators see: log lines and metrics. Both are API: names are documented and do not change silently."""
