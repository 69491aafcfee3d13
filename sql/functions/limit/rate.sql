-- Rates (see limit.sql). Tokens flow into a bucket, up to the burst. A claim locks the bucket until the end of its transaction, so in no
-- interval do jobs take more tokens than the rate and the burst allow.

create or replace function coordinator.limit_level(p_limit coordinator.job_limits, p_level double precision, p_level_at timestamptz, p_now timestamptz)
returns double precision
language sql immutable parallel safe
return least(p_limit.burst, p_level + greatest(0, extract(epoch from p_now - p_level_at)::double precision) * p_limit.rate / extract(epoch from p_limit.per)::double precision);
comment on function coordinator.limit_level(coordinator.job_limits, double precision, timestamptz, timestamptz) is
  'Return how many tokens are in the bucket of a rate at an instant. Internal.';

create or replace function coordinator.limit_tokens(p_limit coordinator.job_limits) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_bucket coordinator.job_buckets;
  v_now    timestamptz;
begin
  select b.* into v_bucket from coordinator.job_buckets b where b.limit_id = p_limit.id for no key update;
  v_now := greatest(coordinator.now_utc(), v_bucket.level_at); -- after the lock
  v_bucket.level := coordinator.limit_level(p_limit, v_bucket.level, v_bucket.level_at, v_now);
  update coordinator.job_buckets b set level = v_bucket.level, level_at = v_now where b.limit_id = p_limit.id and b.level_at <> v_now;
  return floor(v_bucket.level);
end
$$;
comment on function coordinator.limit_tokens(coordinator.job_limits) is
  'Lock the bucket of a rate, and return how many whole tokens are in it. No event. Internal.';

create or replace function coordinator.limit_take_tokens(p_limit coordinator.job_limits, p_tokens bigint, p_need bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_bucket coordinator.job_buckets;
begin
  update coordinator.job_buckets b set level = b.level - p_tokens where b.limit_id = p_limit.id and p_tokens > 0;
  if p_need > 0 then
    select b.* into v_bucket from coordinator.job_buckets b where b.limit_id = p_limit.id;
    perform coordinator.limit_lack(p_limit.id, v_bucket.level_at
      + make_interval(secs => greatest(0.02, (p_need - v_bucket.level) * extract(epoch from p_limit.per) / p_limit.rate)));
  end if;
end
$$;
comment on function coordinator.limit_take_tokens(coordinator.job_limits, bigint, bigint) is
  'Take tokens out of a bucket that limit_tokens has locked. p_need: the minimum that the next job needs; workers are woken when it is available. No event. Internal.';
