"""The loops that keep the database clean: one file one loop; run by ``keeper`` on the leader."""
