"""Benchmarks of what agents keep: logs, documents, memories and knowledge."""
