"""Log lines and metrics for operators. Both are API: names are documented and do not change silently."""
