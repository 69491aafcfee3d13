-- Metrics of the database, sampled by the leading daemon. A noun declares its metrics in its own file, beside the function that samples
-- them: <noun>_sample(p_since), where p_since is the time of the previous sample.
--
-- A sample must never harm. It takes only the locks of a read, waits at most 100 ms for each, and reads a limited part of each table:
-- 16 MB, from which it estimates the rest. The daemon cancels it after 5 seconds. Labels that users choose are shown for the 50
-- largest; the others are summed up as "other".

create or replace function coordinator.metric_sample(p_samplers text[], p_since timestamptz default null)
returns table (name text, labels text[], value double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set jit = off
as $$
declare
  v_sampler text;
  v_began   timestamptz;
begin
  for v_sampler in
    select m.sampler from coordinator.metrics m where m.sampler = any (p_samplers) group by m.sampler order by min(m.ordinal)
  loop
    v_began := clock_timestamp();
    return query execute format('select name, labels, value from coordinator.%I($1) where value is not null', v_sampler) using p_since;
    return query values
      ('coordinator_sample_seconds', array[v_sampler], extract(epoch from clock_timestamp() - v_began)::double precision),
      ('coordinator_sample_timestamp_seconds', array[v_sampler], extract(epoch from v_began)::double precision);
  end loop;
end
$$;
comment on function coordinator.metric_sample(text[], timestamptz) is
  'Return what these samplers (see the table metrics) find now, and how long each took. Internal: the leading daemon calls it.';

create or replace function coordinator.metric_share(p_table regclass, p_pages integer default 2000) returns double precision
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select least(1, p_pages / greatest(1, pg_relation_size(p_table) / 8192)::double precision)
$$;
comment on function coordinator.metric_share(regclass, integer) is
  'Return which share of a table a sample reads, so that it is at most p_pages pages. Internal.';

create or replace function coordinator.metric_label(p_text text, p_place bigint) returns text
language sql immutable parallel safe
return case when p_place > 50 then 'other' else left(regexp_replace(p_text, '[[:cntrl:]\u2028\u2029]', '?', 'g'), 64) end;
comment on function coordinator.metric_label(text, bigint) is
  'Return the value of a label for a name that users choose, which is in this place by size: without control characters, at most 64 characters long, and "other" beyond the 50 largest. Internal.';

create or replace function coordinator.metric_age(p_at timestamptz) returns double precision
language sql volatile
return greatest(0, extract(epoch from coordinator.now_utc() - p_at))::double precision;
comment on function coordinator.metric_age(timestamptz) is
  'Return for how many seconds something has lasted; null for null. Internal.';
