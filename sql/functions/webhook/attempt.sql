-- Attempts of webhooks: which deliveries a daemon sends now, and their results.
--
-- A claim returns up to 16 deliveries of a webhook. The daemon sends them one after the other until one fails or is slow, or none is left.
-- Their memory is counted in slots of 128 KiB: the deliveries of one claim together fill one slot, and a larger delivery takes up to 8 alone.

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
  'Return the next deliveries of a claimed webhook, in order: up to 16 with 128 KiB in total, or one larger delivery. Internal.';

create or replace function coordinator.webhook_claim(
  p_limit integer default 64, p_slow integer default 32, p_lease interval default '1 minute', p_holder uuid default null, p_held bigint[] default '{}',
  p_unproven integer default 48)
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
  -- Claims that another daemon did not finish in time, and claims of this daemon whose response was lost. Perhaps nothing is left to deliver.
  v_ids := array(select w.id from coordinator.webhooks w
                 where w.claimed_until is not null and case when w.holder = p_holder then w.id <> all (p_held) else w.claimed_until <= v_now end
                 for no key update skip locked);
  if v_ids <> '{}' then
    update coordinator.webhooks w set claimed_until = null where w.id = any (v_ids);
    perform coordinator.webhook_next(v_ids, v_now);
  end if;
  -- Projects take turns: the one with the fewest slots in use comes first. Within a project, the webhook that has been due longest comes first.
  with used as (
    select c.project_id, sum(c.slots) as slots, coalesce(sum(c.slots) filter (where c.slow), 0) as slow_slots,
           coalesce(sum(c.slots) filter (where c.slow or c.delivered_at is null), 0) as unproven_slots
    from coordinator.webhooks c where c.claimed_until is not null group by c.project_id),
  due as (
    select w.id, w.project_id, w.slots, w.slow, w.slow or w.delivered_at is null as unproven, w.due_at, coalesce(u.slots, 0) as used,
           coalesce(u.slow_slots, 0) + sum(w.slots) over (partition by w.project_id, w.slow order by w.due_at, w.id) as alike
    from coordinator.webhooks w left join used u on u.project_id = w.project_id where w.due_at <= v_now and w.claimed_until is null and w.id <> all (p_held)),
  quick as (
    select d.*, sum(d.slots) over (partition by d.slow order by d.used + d.alike - d.slots, d.due_at, d.id) as all_alike
    from due d where not d.slow or d.alike <= 8),
  proven as (
    select q.*, sum(q.slots) over (partition by q.unproven order by q.used + q.alike - q.slots, q.due_at, q.id) as all_unproven
    from quick q where not q.slow or q.all_alike <= p_slow - (select coalesce(sum(u.slow_slots), 0) from used u)),
  fair as (
    select v.*, v.used + sum(v.slots) over (partition by v.project_id order by v.due_at, v.id) as place
    from proven v where not v.unproven or v.all_unproven <= p_unproven - (select coalesce(sum(u.unproven_slots), 0) from used u)),
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
comment on function coordinator.webhook_claim(integer, integer, interval, uuid, bigint[], integer) is
  'Claim webhooks that have something to deliver for p_lease, and return their deliveries in order. The claimed deliveries take at most p_limit slots, and 16 per project. Webhooks whose last attempt was slow or failed take at most p_slow of these, and 8 per project. Together with webhooks to which nothing was delivered yet, they take at most p_unproven, so receivers that never respond leave slots for those that do. A delivery takes a slot for each 128 KiB, at most 8. p_holder: who claims; p_held: its claims that are not finished. Other claims of p_holder were lost with a response, and end. No event.';

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
    if not found then -- another transaction has locked it, it was removed, another daemon has claimed it, or this call is a repetition
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
        due_at = case when n.id is not null then greatest(n.due_at, v_now) end, -- behind those that wait for a slot
        slots = coalesce(coordinator.webhook_slots(n.body), 1)
    from (select) one left join lateral coordinator.webhook_first(v_webhook.id, v_webhook.paused_at is not null, 1) n on true
    where w.id = v_webhook.id;
  end loop;
  return v_busy;
end
$$;
comment on function coordinator.webhook_finish(jsonb) is
  'Store the results of attempts, and end their claims. p_claims: an array of {webhook, claim, attempts}; its attempts are, in order, {delivery, seconds, response, error, retry_s}. error: absent if it was delivered; response: the HTTP status; retry_s: the wait that the receiver asks for. Claims that another daemon has taken since, and repetitions, are ignored. Return the webhooks that another transaction has locked: repeat those.';
