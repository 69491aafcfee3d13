"""The maintenance loops of the database: a table of them, and the keeper that runs them on the leader."""
