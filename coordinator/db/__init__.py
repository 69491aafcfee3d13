"""PostgreSQL: connections, calls, the schema, the embedded server; the only place that knows asyncpg."""
