-- Attempts of webhooks: what a daemon sends now, and what became of it.
--
-- A claim hands out up to 16 deliveries of a webhook, which the daemon sends one after the other until one fails, takes long, or none is left.
-- What it takes in memory is counted in slots of 128 KiB: deliveries of one claim fill one slot, and a larger one takes up to 8 alone.

create or replace function coordinator.webhook_work_of(p_webhook bigint, p_now timestamptz) returns setof coordinator.webhook_work
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select w.id, p.name, w.claim, (b.d).id, (b.d).message, w.url,
           array[w.secret] || case when w.before_until > p_now then array[w.secret_before] else '{}' end, (b.d).body, (b.d).attempts + 1, w.slots
    from coordinator.webhooks w join coordinator.projects p on p.id = w.project_id
    cross join lateral (
      select d, row_number() over sent as place, sum(octet_length(d.body)) over sent as bytes, bool_and(d.due_at <= p_now) over sent as due
      from coordinator.webhook_first(w.id, w.paused_at is not null, 16) d window sent as (order by d.test desc, d.id)) b
    where w.id = p_webhook and (b.place = 1 or b.due and b.bytes <= 131072) order by b.place;
end
$$;
comment on function coordinator.webhook_work_of(bigint, timestamptz) is
  'Return what a webhook that is claimed has to deliver next, in order: up to 16 deliveries with 128 KiB, or one that is larger. Internal.';

create or replace function coordinator.webhook_claim(
  p_limit integer default 64, p_slow integer default 32, p_lease interval default '1 minute', p_holder uuid default null, p_held bigint[] default '{}')
returns setof coordinator.webhook_work
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := coordinator.now_utc();
  v_ids bigint[];
begin
  perform coordinator.check_page(p_limit);
  perform coordinator.check_ttl(p_lease);
  -- What another daemon did not finish in time, and what this one has claimed in an answer that was lost: perhaps nothing is left to deliver.
  v_ids := array(select w.id from coordinator.webhooks w
                 where w.claimed_until is not null and case when w.holder = p_holder then w.id <> all (p_held) else w.claimed_until <= v_now end
                 for no key update skip locked);
  if v_ids <> '{}' then
    update coordinator.webhooks w set claimed_until = null where w.id = any (v_ids);
    perform coordinator.webhook_next(v_ids, v_now);
  end if;
  -- Projects take turns: first those with the fewest slots in use. Of one project, the webhook that is due for the longest time comes first.
  with used as (
    select c.project_id, sum(c.slots) as slots, coalesce(sum(c.slots) filter (where c.slow), 0) as slow_slots
    from coordinator.webhooks c where c.claimed_until is not null group by c.project_id),
  due as (
    select w.id, w.project_id, w.slots, w.slow, w.due_at, coalesce(u.slots, 0) as used,
           coalesce(u.slow_slots, 0) + sum(w.slots) over (partition by w.project_id, w.slow order by w.due_at, w.id) as alike
    from coordinator.webhooks w left join used u on u.project_id = w.project_id where w.due_at <= v_now and w.claimed_until is null and w.id <> all (p_held)),
  quick as (
    select d.*, sum(d.slots) over (partition by d.slow order by d.used + d.alike - d.slots, d.due_at, d.id) as all_alike
    from due d where not d.slow or d.alike <= 8),
  fair as (
    select q.*, q.used + sum(q.slots) over (partition by q.project_id order by q.due_at, q.id) as place
    from quick q where not q.slow or q.all_alike <= p_slow - (select coalesce(sum(u.slow_slots), 0) from used u)),
  line as (
    select f.id, sum(f.slots) over turn - f.slots as before, row_number() over turn as turn
    from fair f where f.place <= 16 window turn as (order by f.place - f.slots, f.due_at, f.id))
  select array_agg(l.id order by l.turn) into v_ids from line l where l.before < p_limit;
  v_ids := array(select w.id from coordinator.webhooks w join unnest(v_ids) with ordinality i (id, place) on i.id = w.id
                 where w.due_at <= v_now and w.claimed_until is null order by i.place for no key update of w skip locked);
  update coordinator.webhooks w set claim = w.claim + 1, claimed_until = v_now + p_lease, due_at = v_now + p_lease, holder = p_holder where w.id = any (v_ids);
  return query select k.* from unnest(v_ids) i (id) cross join lateral coordinator.webhook_work_of(i.id, v_now) k;
end
$$;
comment on function coordinator.webhook_claim(integer, integer, interval, uuid, bigint[]) is
  'Claim webhooks that have something to deliver, for p_lease, and return it, in order: while fewer than p_limit slots are taken, of a project at most 16, of those whose last attempt was slow or failed at most p_slow, and 8 of a project. A delivery takes a slot for each 128 KiB, at most 8. p_holder: who claims, with all that it has claimed and not yet finished in p_held; another claim of it was lost with an answer, and ends. No event.';

create or replace function coordinator.webhook_finish(p_claims jsonb) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_claim    record;
  v_attempt  record;
  v_webhook  coordinator.webhooks;
  v_delivery coordinator.webhook_deliveries;
  v_project  text;
  v_status   text;
  v_busy     bigint[] := '{}';
begin
  for v_claim in select c.* from jsonb_to_recordset(p_claims) c (webhook bigint, claim bigint, attempts jsonb) order by c.webhook loop
    select * into v_webhook from coordinator.webhooks w
    where w.id = v_claim.webhook and w.claim = v_claim.claim and w.claimed_until is not null for no key update skip locked;
    if not found then -- another transaction has it; or it was removed, another daemon has claimed it, or this call is repeated
      v_busy := v_busy || array(
        select w.id from coordinator.webhooks w where w.id = v_claim.webhook and w.claim = v_claim.claim and w.claimed_until is not null);
      continue;
    end if;
    select p.name into v_project from coordinator.projects p where p.id = v_webhook.project_id;
    v_webhook.slow := false;
    for v_attempt in
      select a.* from rows from (jsonb_to_recordset(v_claim.attempts) as (
        delivery bigint, seconds double precision, response integer, error text, retry_s double precision)) with ordinality a order by a.ordinality
    loop
      v_webhook.slow := v_webhook.slow or v_attempt.error is not null or v_attempt.seconds > 1;
      select * into v_delivery from coordinator.webhook_deliveries d
      where d.id = v_attempt.delivery and d.webhook_id = v_webhook.id and d.status = 'waiting';
      continue when not found;
      v_attempt.error := left(v_attempt.error, 500);
      v_status := case when v_attempt.error is null then 'delivered'
                       when v_delivery.test or v_delivery.attempts >= 9 or v_attempt.response = 410 then 'dead' else 'waiting' end;
      update coordinator.webhook_deliveries d
      set status = v_status, attempts = d.attempts + 1, attempted_at = v_now, response = v_attempt.response, error = v_attempt.error, seconds = v_attempt.seconds,
          body = case when v_status <> 'delivered' then d.body end, ended_at = case when v_status <> 'waiting' then v_now end,
          due_at = v_now + greatest(coordinator.job_backoff('5 seconds', d.attempts + 1), make_interval(secs => least(coalesce(v_attempt.retry_s, 0), 3600)))
      where d.id = v_delivery.id;
      if v_status <> 'waiting' then
        v_webhook.waiting := v_webhook.waiting - 1;
        v_webhook.waiting_bytes := v_webhook.waiting_bytes - octet_length(v_delivery.body);
      end if;
      if v_delivery.test then
        perform coordinator.event_append('webhook.tested', v_project, v_webhook.id::text, 'coordinator', v_now,
          jsonb_build_object('delivery', v_delivery.id, 'status', v_status, 'response', v_attempt.response, 'error', v_attempt.error));
        continue;
      elsif v_status = 'dead' then
        perform coordinator.event_append('webhook.dead', v_project, v_webhook.id::text, 'coordinator', v_now,
          jsonb_build_object('delivery', v_delivery.id, 'message', v_delivery.message, 'type', v_delivery.type, 'attempts', v_delivery.attempts + 1,
                             'response', v_attempt.response, 'error', v_attempt.error));
      end if;
      v_webhook.error := v_attempt.error;
      v_webhook.failing_since := case when v_attempt.error is not null then coalesce(v_webhook.failing_since, v_now) end;
      v_webhook.delivered_at := case when v_attempt.error is null then v_now else v_webhook.delivered_at end;
      if v_webhook.paused_at is null and (v_attempt.response = 410 or v_webhook.failing_since <= v_now - interval '3 days') then
        v_webhook.disabled := true;
        v_webhook.paused_at := v_now;
        v_webhook.paused_by := 'coordinator';
        v_webhook.pause_reason := case when v_attempt.response = 410 then 'The receiver is gone: it responded with 410.'
                                       else 'Every attempt has failed for three days.' end;
        perform coordinator.event_append('webhook.disabled', v_project, v_webhook.id::text, 'coordinator', v_now,
          jsonb_build_object('reason', v_webhook.pause_reason, 'failing_since', v_webhook.failing_since));
      end if;
    end loop;
    update coordinator.webhooks w
    set waiting = v_webhook.waiting, waiting_bytes = v_webhook.waiting_bytes, claimed_until = null, slow = v_webhook.slow,
        error = v_webhook.error, failing_since = v_webhook.failing_since, delivered_at = v_webhook.delivered_at, paused_at = v_webhook.paused_at,
        paused_by = v_webhook.paused_by, pause_reason = v_webhook.pause_reason, disabled = v_webhook.disabled,
        due_at = case when n.id is not null then greatest(n.due_at, v_now) end, -- after those that wait for a slot
        slots = coalesce(coordinator.webhook_slots(n.body), 1)
    from (select) one left join lateral coordinator.webhook_first(v_webhook.id, v_webhook.paused_at is not null, 1) n on true
    where w.id = v_webhook.id;
  end loop;
  return v_busy;
end
$$;
comment on function coordinator.webhook_finish(jsonb) is
  'Store how attempts ended, and end their claims. p_claims: an array of {webhook, claim, attempts}, whose attempts are, in their order, {delivery, seconds, response, error, retry_s}; no error: it was delivered; response: the HTTP status; retry_s: what the receiver asks for. What another daemon has claimed since is passed over, as is a repetition. Returns the webhooks that another transaction has: repeat those.';
