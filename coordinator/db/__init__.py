"""PostgreSQL: connections, calls, the schema; the only place that knows asyncpg."""
