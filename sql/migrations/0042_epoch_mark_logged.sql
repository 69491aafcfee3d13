-- In PostgreSQL 15 and 16, an unlogged sequence that a standby has by replication cannot be read after its promotion: the page that recovery copies
-- may not be on disk yet. A crash is told by another trace, see epoch_hash.
alter sequence coordinator.epoch_mark set logged;
comment on sequence coordinator.epoch_mark is 'The present epoch: its id, drawn at random (upper 32 bits), and a hash of the run of the server and of the database in which it began (lower 32 bits). Set by epoch_begin, outside of transactions.';
