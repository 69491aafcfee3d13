-- Deleting rows whose retention has passed: shared by the loops that prune, for nouns whose rows need nothing else.

create or replace function coordinator.prune_rows(p_table regclass, p_instant name, p_retention interval, p_limit integer, p_which text default 'true')
returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  perform coordinator.check_ttl(p_retention);
  perform coordinator.check_page(p_limit);
  execute format('delete from %s where ctid = any (array(select ctid from %1$s where %s and %I < $1 order by %3$I limit $2 for update skip locked))',
                 p_table, p_which, p_instant) using coordinator.now_utc() - p_retention, p_limit;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.prune_rows(regclass, name, interval, integer, text) is
  'Delete up to p_limit rows of a table whose instant p_instant is older than p_retention, and for which p_which is true; returns how many. Rows that another transaction has locked are kept. No event. Internal.';

-- pg_dump's workers lock tables with nowait, so in the middle of a dump, even a waiting request for an exclusive lock would make it fail.
create or replace function coordinator.partition_turn() returns boolean
language sql volatile
return pg_try_advisory_xact_lock_shared(hashtextextended('coordinator.partitions', 0));
comment on function coordinator.partition_turn() is
  'Keep backups from beginning until the end of the transaction; false while one runs: then no partition is added or dropped. Internal.';
