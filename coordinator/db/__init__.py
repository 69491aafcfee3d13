"""PostgreSQL: connections, calls, the schema. Only this package uses asyncpg."""
