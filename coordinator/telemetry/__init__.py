"""Log lines and metrics for operators. Both are part of the API: names are documented, and changes are announced."""
