-- Requests that may be repeated: one transaction claims the key, makes the change and records the response, so a key has a
-- response if and only if its change was committed. A second request with the key waits at the primary key. If the first
-- commits, the second gets its response; if the first rolls back, the second runs.

create or replace function coordinator.idempotency_claim(
  p_project text, p_caller text, p_key text, p_request text, p_ttl interval default '1 day') returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_known  coordinator.idempotency_keys;
  v_claims boolean;
begin
  perform coordinator.check_name('the idempotency key', p_key);
  perform coordinator.check_ttl(p_ttl);
  begin
    insert into coordinator.idempotency_keys as k (project, caller, key, request, created_at, expires_at)
    values (p_project, p_caller, p_key, p_request, v_now, v_now + p_ttl)
    on conflict on constraint idempotency_keys_pkey do update
    set request = excluded.request, response = null, created_at = excluded.created_at, expires_at = excluded.expires_at
    where k.expires_at <= v_now
    returning true into v_claims;
  exception when lock_not_available then
    raise exception using errcode = 'ZC306', message = format('a request with the key "%s" has been running for 2 seconds', p_key),
      hint = 'Retry later with the same key.';
  end;
  if v_claims then
    return null;
  end if;
  select * into v_known from coordinator.idempotency_keys k where k.project = p_project and k.caller = p_caller and k.key = p_key;
  if v_known.request is distinct from p_request then
    raise exception using errcode = 'ZC305', message = format('the key "%s" belongs to another request', p_key),
      hint = 'Use a new key for each change, and the same key only to repeat it.';
  end if;
  return v_known.response;
end
$$;
comment on function coordinator.idempotency_claim(text, text, text, text, interval) is
  'Claim a caller''s key for a request for p_ttl and return null, or return the recorded response. Waits at most 2 seconds for another transaction that holds the key (ZC306). ZC305: the key belongs to another request. Call it before the change, in the same transaction. No event.';

create or replace function coordinator.idempotency_store(p_project text, p_caller text, p_key text, p_response text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update coordinator.idempotency_keys set response = p_response, position = coordinator.position_now()
  where project = p_project and caller = p_caller and key = p_key;
end
$$;
comment on function coordinator.idempotency_store(text, text, text, text) is
  'Record the response for a key that this transaction claimed. No event.';

create or replace function coordinator.idempotency_position(p_project text, p_caller text, p_key text) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select position from coordinator.idempotency_keys where project = p_project and caller = p_caller and key = p_key);
end
$$;
comment on function coordinator.idempotency_position(text, text, text) is
  'Return the position of the change whose response is recorded for a key.';

create or replace function coordinator.idempotency_prune(p_limit integer default 1000) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.check_page(p_limit);
  with pruned as (
    delete from coordinator.idempotency_keys k
    using (select project, caller, key from coordinator.idempotency_keys where expires_at <= coordinator.now_utc()
           order by expires_at limit p_limit for update skip locked) old
    where k.project = old.project and k.caller = old.caller and k.key = old.key
    returning k.key)
  select count(*)::integer from pruned;
$$;
comment on function coordinator.idempotency_prune(integer) is
  'Delete up to p_limit expired keys with their responses; returns how many. Repeat until 0. No event.';
