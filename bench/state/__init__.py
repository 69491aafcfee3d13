"""Benchmarks of what agents keep: logs, documents, memories, knowledge and artifacts."""
