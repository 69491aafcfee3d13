"""The loops that keep the database clean: a table of them, and the keeper that runs them on the leader."""
