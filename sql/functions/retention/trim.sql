-- Trimming logs.
--
-- A log has a lazy timer, trim_at: when retention checks it next. Most appends do not change it, because maintaining its index would slow
-- down each of them. An append that crosses a multiple of 256 entries beyond the bound sets it to now. log_trim finds due logs by the index
-- on trim_at. It locks the header, walks the entries from trim_from in the order of the primary key, which is also the order of time,
-- deletes at most p_limit of them, and sets trim_at to the time when the next entry is due. The loop pauses between two calls, so that
-- appends to the log get through.
--
-- What stays: the newest max_count entries; kept entries; the entries from the one that a kept entry needs up to that entry, and what they
-- need. trim_from moves past them, so they are not visited again until one of them is no longer kept.
--
-- Two calls at the same time do no harm: the second one waits for the header, or takes other logs. While an old snapshot is open, dead
-- entries stay in the table, but no batch reads those of the previous batch.
--
-- Locks: headers of logs, then entries. A call waits only for its first header, while it holds no other.

create or replace function coordinator.log_needed(p_log_id bigint) returns int8multirange
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kept   record;
  v_low    bigint;
  v_lower  bigint;
  v_needed int8multirange := '{}';
begin
  for v_kept in
    select e.seq, e.needs_seq from coordinator.entries e where e.log_id = p_log_id and e.kept and e.needs_seq < e.seq order by e.seq
  loop
    v_low := v_kept.needs_seq;
    loop
      select min(e.needs_seq) into v_lower from coordinator.entries e where e.log_id = p_log_id and e.seq >= v_low and e.seq < v_kept.seq;
      exit when v_lower is null or v_lower >= v_low;
      v_low := v_lower;
    end loop;
    v_needed := v_needed + int8multirange(int8range(v_low, v_kept.seq));
  end loop;
  return v_needed;
end
$$;
comment on function coordinator.log_needed(bigint) is
  'Return the numbers of the entries that kept entries of a log need. Internal.';

create or replace function coordinator.log_forecast(p_log coordinator.logs, p_cutoff timestamptz, p_max_count bigint)
returns table (by_age bigint, by_count bigint, oldest_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_needed int8multirange := coordinator.log_needed(p_log.id);
  v_behind bigint := (select count(*) from coordinator.entries e where e.log_id = p_log.id and e.seq < p_log.trim_from);
  v_old    bigint := case when p_cutoff is not null then coordinator.log_seq_at(p_log, p_cutoff) else 0 end; -- up to here by age
  v_over   bigint := 0; -- up to here by count
begin
  if p_log.count - v_behind > p_max_count then
    select e.seq into v_over from coordinator.entries e
    where e.log_id = p_log.id and e.seq >= p_log.trim_from order by e.seq offset p_log.count - v_behind - p_max_count - 1 limit 1;
  end if;
  return query
    select count(*) filter (where e.seq <= v_old), count(*) filter (where e.seq > v_old), min(e.created_at)
    from coordinator.entries e
    where e.log_id = p_log.id and e.seq >= p_log.trim_from and e.seq <= greatest(v_old, v_over) and not e.kept and not e.seq <@ v_needed;
end
$$;
comment on function coordinator.log_forecast(coordinator.logs, timestamptz, bigint) is
  'Return how many entries of a log are beyond its bounds, those older than p_cutoff separately. Internal.';

create or replace function coordinator.log_trim(p_limit integer default 1000) returns setof coordinator.retention_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- the statistics of a log that has just grown may still be those of an empty table
set enable_bitmapscan = off
set enable_sort = off
set lock_timeout = '100ms'
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_left   integer := p_limit;
  v_held   boolean := false;
  v_log    coordinator.logs;
  v_policy coordinator.retention;
  v_cutoff timestamptz;
  v_excess bigint; -- entries beyond the bound, from trim_from on
  v_needed int8multirange;
  v_seqs   bigint[];
  v_last   bigint; -- the position of the last of them
  v_to     bigint;
  v_next   record;
  v_gone   bigint;
  v_due_at timestamptz;
begin
  perform coordinator.check_page(p_limit);
  while v_left > 0 loop
    select * into v_log from coordinator.logs l where l.trim_at <= v_now order by l.trim_at limit 1 for no key update skip locked;
    if not found and not v_held then
      begin
        select * into v_log from coordinator.logs l where l.trim_at <= v_now order by l.trim_at limit 1 for no key update;
      exception when lock_not_available then
        exit;
      end;
    end if;
    exit when v_log.id is null;
    v_held := true;
    v_policy := coordinator.retention_of(v_log.project_id, 'log', v_log.kind);
    v_cutoff := case when v_log.deleted then 'infinity' when not v_log.kept then v_now - v_policy.max_age end;
    v_needed := '{}';
    v_excess := case when v_log.kept or v_log.deleted then 0 else coalesce(v_log.count - v_policy.max_count, 0) end;
    if not v_log.deleted and exists (select from coordinator.entries e where e.log_id = v_log.id and e.kept) then
      v_needed := coordinator.log_needed(v_log.id);
      if v_excess > 0 then -- kept and needed entries before trim_from are also beyond the bound
        v_excess := v_excess
          - (select count(*) from coordinator.entries e where e.log_id = v_log.id and e.kept and e.seq < v_log.trim_from)
          - (select count(*) from unnest(v_needed) n (range) join coordinator.entries e
               on e.log_id = v_log.id and e.seq >= lower(n.range) and e.seq < least(upper(n.range), v_log.trim_from)
             where not e.kept);
      end if;
    end if;
    select array_agg(b.seq order by b.place), max(b.place) into v_seqs, v_last
    from (select w.seq, w.created_at, w.place
          from (select e.seq, e.created_at, e.kept, row_number() over (order by e.seq) as place
                from coordinator.entries e where e.log_id = v_log.id and e.seq >= v_log.trim_from) w
          where v_log.deleted or not w.kept and not w.seq <@ v_needed
          order by w.seq limit v_left) b
    where b.created_at <= v_cutoff or b.place <= v_excess;
    if v_log.kind = 'audit' and v_seqs <> '{}' then
      perform coordinator.audit_prune(v_log, v_seqs[cardinality(v_seqs)], v_now);
    end if;
    -- Between bounds: for a list alone, the planner may use only log_id of the index, and read the whole log.
    delete from coordinator.entries e
    where e.log_id = v_log.id and e.seq between v_seqs[1] and v_seqs[cardinality(v_seqs)] and e.seq = any (v_seqs);
    get diagnostics v_gone = row_count;
    v_to := coalesce(v_seqs[cardinality(v_seqs)], v_log.trim_from - 1);
    v_due_at := null;
    if v_gone = v_left then -- there may be more
      v_due_at := v_now;
    elsif v_log.deleted then
      v_due_at := v_log.updated_at + coordinator.retention_age(v_log.project_id, 'document', '*');
    elsif v_policy.max_age is not null and not v_log.kept then
      select e.created_at into v_next from coordinator.entries e
      where e.log_id = v_log.id and e.seq > v_to and not e.kept and not e.seq <@ v_needed order by e.seq limit 1;
      v_due_at := coalesce(v_next.created_at, v_now) + v_policy.max_age;
    end if;
    if v_log.deleted and v_due_at <= v_now and v_gone < v_left then
      delete from coordinator.logs l where l.id = v_log.id;
    else
      update coordinator.logs l
      set count = l.count - v_gone, trim_from = greatest(l.trim_from, v_to + 1), first_seq = greatest(l.first_seq, v_to + 1), trim_at = v_due_at
      where l.id = v_log.id;
    end if;
    v_left := v_left - greatest(v_gone, 10);
    return next row('log', coordinator.retention_label('log', v_log.kind), v_gone)::coordinator.retention_result;
    v_log := null;
  end loop;
end
$$;
comment on function coordinator.log_trim(integer) is
  'Delete at most p_limit entries of logs that are due, and headers of deleted logs after the time that the policy of documents says. Return a row for each log that was checked. Repeat until there is none. No event.';
