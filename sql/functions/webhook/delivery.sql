-- Deliveries of webhooks: which ones wait, in which order they are sent, and how long ended ones are kept.

create or replace view coordinator.webhook_deliveries_live with (security_barrier) as
  select p.name as project, d.webhook_id as webhook, d.id as delivery, d.message, d.type, d.key, d.at, d.status, d.attempts,
         case when d.status = 'waiting' then d.due_at end as due_at, d.attempted_at, d.response, d.error, d.seconds
  from coordinator.webhook_deliveries d join coordinator.webhooks w on w.id = d.webhook_id join coordinator.projects p on p.id = w.project_id;
comment on view   coordinator.webhook_deliveries_live              is 'Webhook deliveries. Internal: managers call webhook_deliveries.';
comment on column coordinator.webhook_deliveries_live.project      is 'Name of the project.';
comment on column coordinator.webhook_deliveries_live.webhook      is 'Number of the webhook.';
comment on column coordinator.webhook_deliveries_live.delivery     is 'Number of the delivery.';
comment on column coordinator.webhook_deliveries_live.message      is 'Header webhook-id of each attempt.';
comment on column coordinator.webhook_deliveries_live.type         is 'Type of the event; reset: events are gone; test: a test delivery.';
comment on column coordinator.webhook_deliveries_live.key          is 'Key of the event.';
comment on column coordinator.webhook_deliveries_live.at           is 'When the event happened (database clock).';
comment on column coordinator.webhook_deliveries_live.status       is 'waiting, delivered, or dead: no further attempt is made.';
comment on column coordinator.webhook_deliveries_live.attempts     is 'Number of ended attempts.';
comment on column coordinator.webhook_deliveries_live.due_at       is 'When the next attempt is due; null: the delivery has ended.';
comment on column coordinator.webhook_deliveries_live.attempted_at is 'When the last attempt ended (database clock).';
comment on column coordinator.webhook_deliveries_live.response     is 'HTTP status of the last response; null: there was none.';
comment on column coordinator.webhook_deliveries_live.error        is 'Why the last attempt failed.';
comment on column coordinator.webhook_deliveries_live.seconds      is 'Duration of the last attempt.';

create or replace function coordinator.webhook_first(p_webhook bigint, p_paused boolean, p_limit integer) returns setof coordinator.webhook_deliveries
language sql stable
begin atomic
  select * from coordinator.webhook_deliveries d
  where d.webhook_id = p_webhook and d.status = 'waiting' and (d.test or not p_paused) order by d.test desc, d.id limit p_limit;
end;
comment on function coordinator.webhook_first(bigint, boolean, integer) is
  'Return the next waiting delivery of a webhook. Internal.';

create or replace function coordinator.webhook_slots(p_body text) returns integer
language sql immutable parallel safe
return least((octet_length(p_body) + 131071) / 131072, 8);
comment on function coordinator.webhook_slots(text) is
  'Return how many slots an attempt takes: one for each 128 KiB of its body, and at most 8. Internal.';

create or replace function coordinator.webhook_next(p_webhooks bigint[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update coordinator.webhooks w
  set due_at = case when w.claimed_until > p_now then w.claimed_until else n.due_at end,
      slots = case when w.claimed_until > p_now then w.slots else coalesce(coordinator.webhook_slots(n.body), 1) end
  from coordinator.webhooks o left join lateral coordinator.webhook_first(o.id, o.paused_at is not null, 1) n on true
  where o.id = any (p_webhooks) and w.id = o.id;
end
$$;
comment on function coordinator.webhook_next(bigint[], timestamptz) is
  'Store when the next delivery of webhooks is due, and how many slots it takes. Called with the rows locked, after every change that affects this. No event. Internal.';

create or replace function coordinator.webhook_body(p_type text, p_at timestamptz, p_data text) returns text
language sql stable parallel safe
return '{"type": ' || to_json(p_type) || ', "timestamp": "' || to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '", "data": ' || p_data || '}';
comment on function coordinator.webhook_body(text, timestamptz, text) is
  'Return the body of a request; p_data: the JSON text of data in it. Internal.';

create or replace function coordinator.webhook_queue(p_webhook bigint, p_name text, p_type text, p_key text, p_data jsonb, p_now timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_body text := coordinator.webhook_body(p_type, p_now, p_data::text);
  v_id   bigint;
begin
  insert into coordinator.webhook_deliveries (webhook_id, message, type, key, at, test, body, due_at)
  values (p_webhook, format('msg_%s_%s_%s', p_webhook, p_type, p_name), p_type, p_key, p_now, p_type = 'test', v_body, p_now) returning id into v_id;
  update coordinator.webhooks w set waiting = w.waiting + 1, waiting_bytes = w.waiting_bytes + octet_length(v_body) where w.id = p_webhook;
  perform coordinator.webhook_next(array[p_webhook], p_now);
  return v_id;
end
$$;
comment on function coordinator.webhook_queue(bigint, text, text, text, jsonb, timestamptz) is
  'Insert a delivery that is not an event: a test or a reset. No event. Internal.';

create or replace function coordinator.webhook_test(p_project text, p_webhook bigint, p_actor text default null)
returns setof coordinator.webhook_deliveries_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook coordinator.webhooks := coordinator.webhook_hold(p_project, p_webhook);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
  v_id      bigint;
begin
  if (select count(*) from coordinator.webhook_deliveries d where d.webhook_id = p_webhook and d.status = 'waiting' and d.test) >= 10 then
    raise exception using errcode = 'ZC102', message = format('10 tests of webhook %s already wait', p_webhook),
      hint = 'Wait until they have ended. Only a daemon that leads delivers.';
  end if;
  v_id := coordinator.webhook_queue(p_webhook, left(replace(gen_random_uuid()::text, '-', ''), 16), 'test', p_webhook::text,
    jsonb_build_object('project', p_project, 'webhook', p_webhook, 'actor', v_actor), v_now);
  return query select * from coordinator.webhook_deliveries_live l where l.delivery = v_id;
end
$$;
comment on function coordinator.webhook_test(text, bigint, text) is
  'Deliver a message of type test, once, before waiting events, even if the webhook is paused. Return its delivery; webhook_delivery shows its outcome. No event until it has ended. ZC223: there is no such webhook.';

create or replace function coordinator.webhook_deliveries(
  p_project text, p_webhook bigint, p_status text default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.webhook_deliveries_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  if p_status not in ('waiting', 'delivered', 'dead') then
    raise exception using errcode = 'ZC105', message = format('invalid status "%s" of a delivery', left(p_status, 100)),
      hint = 'Use waiting, delivered or dead.';
  end if;
  return query
    select * from coordinator.webhook_deliveries_live l
    where l.project = p_project and l.webhook = p_webhook and l.delivery < coalesce(p_after[1]::bigint, 9223372036854775807)
      and (p_status is null or l.status = p_status)
    order by l.delivery desc limit p_limit;
  if not found and not exists (select from coordinator.webhooks w where w.id = p_webhook and w.project_id = v_project) then
    perform coordinator.webhook_missing(p_project, p_webhook);
  end if;
end
$$;
comment on function coordinator.webhook_deliveries(text, bigint, text, text[], integer) is
  'List the deliveries of a webhook, newest first; p_status: waiting, delivered or dead. Of the ended deliveries, the newest 1,000 are kept for at most 30 days. p_after: array[delivery] of the last row read. ZC223: there is no such webhook.';

create or replace function coordinator.webhook_delivery(p_project text, p_delivery bigint)
returns setof coordinator.webhook_deliveries_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  return query select * from coordinator.webhook_deliveries_live l where l.delivery = p_delivery and l.project = p_project;
  if not found then
    raise exception using errcode = 'ZC223', message = format('project "%s" has no delivery %s', p_project, coalesce(p_delivery::text, 'null')),
      hint = 'See "coordinator webhook deliveries".';
  end if;
end
$$;
comment on function coordinator.webhook_delivery(text, bigint) is
  'Show a delivery. ZC223: there is no such delivery, or it is no longer kept.';

create or replace function coordinator.webhook_redrive(
  p_project text, p_webhook bigint, p_delivery bigint default null, p_topics text[] default null, p_since timestamptz default null,
  p_until timestamptz default null, p_actor text default null)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook coordinator.webhooks := coordinator.webhook_hold(p_project, p_webhook);
  v_pattern text := coordinator.topic_pattern(p_topics);
  v_now     timestamptz := coordinator.now_utc();
  v_count   integer;
  v_bytes   bigint;
begin
  with redriven as (
    update coordinator.webhook_deliveries d set status = 'waiting', attempts = 0, due_at = v_now, ended_at = null
    where d.webhook_id = p_webhook and d.status = 'dead' and not d.test and (p_delivery is null or d.id = p_delivery)
      and (v_pattern is null or d.type ~ v_pattern) and (p_since is null or d.at >= p_since) and (p_until is null or d.at < p_until)
    returning octet_length(d.body) as bytes)
  select count(*), coalesce(sum(r.bytes), 0) into v_count, v_bytes from redriven r;
  if v_count = 0 and p_delivery is not null then
    raise exception using errcode = 'ZC223', message = format('webhook %s has no dead delivery %s', p_webhook, p_delivery),
      hint = 'See "coordinator webhook deliveries --status dead".';
  elsif v_count > 0 then
    update coordinator.webhooks w set waiting = w.waiting + v_count, waiting_bytes = w.waiting_bytes + v_bytes where w.id = p_webhook;
    perform coordinator.webhook_next(array[p_webhook], v_now);
    perform coordinator.event_append('webhook.redriven', p_project, p_webhook::text, coordinator.actor_name(p_actor), v_now, jsonb_build_object('count', v_count));
  end if;
  return v_count;
end
$$;
comment on function coordinator.webhook_redrive(text, bigint, bigint, text[], timestamptz, timestamptz, text) is
  'Deliver dead deliveries of a webhook again, in order and before waiting events, with the same webhook-id: one delivery, or those of events of p_topics from p_since until p_until; by default all. Return how many. Tests are not redriven. ZC223: there is no such webhook or dead delivery.';

create or replace function coordinator.webhook_prune(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_count integer;
begin
  perform coordinator.check_page(p_limit);
  delete from coordinator.webhook_deliveries d
  where d.id = any (array(
    select l.id from coordinator.webhook_deliveries l where l.id = any (array(
      select r.id from (
        select e.id, e.ended_at, row_number() over newest as place, sum(octet_length(e.body)) over newest as bytes
        from coordinator.webhook_deliveries e where e.status <> 'waiting'
        window newest as (partition by e.webhook_id, e.status order by e.id desc)) r
      where r.place > 1000 or r.bytes > 16777216 or r.ended_at < v_now - interval '30 days'
      order by r.id limit p_limit)) for update skip locked));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.webhook_prune(integer) is
  'Delete up to p_limit ended deliveries: of each webhook, the newest 1,000 delivered and 1,000 dead ones stay, with at most 16 MiB of bodies, for 30 days. Repeat until 0. No event.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_webhooks', 'webhook_sample', 'gauge', '{state}', '', 'Webhooks: active, paused or disabled.'),
  ('coordinator_webhook_deliveries', 'webhook_sample', 'gauge', '{status}', '', 'Deliveries by status: waiting or dead (at most 10,000 dead ones are counted).'),
  ('coordinator_webhook_oldest_seconds', 'webhook_sample', 'gauge', '{}', 'seconds', 'Age of the oldest event waiting to be delivered, except to paused webhooks.');

create or replace function coordinator.webhook_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select 'coordinator_webhooks', array[s.state], count(w.id)::double precision
    from unnest(array['active', 'paused', 'disabled']) s (state)
    left join coordinator.webhooks w on s.state = case when w.disabled then 'disabled' when w.paused_at is not null then 'paused' else 'active' end
    group by s.state;
  return query
    select 'coordinator_webhook_deliveries', array['waiting'], coalesce(sum(w.waiting), 0)::double precision from coordinator.webhooks w
    union all
    select 'coordinator_webhook_deliveries', array['dead'], count(*)::double precision
    from (select from coordinator.webhook_deliveries d where d.status = 'dead' limit 10000) first
    union all
    select 'coordinator_webhook_oldest_seconds', '{}', coalesce(coordinator.metric_age(min(d.at)), 0)
    from coordinator.webhooks w
    cross join lateral (select e.at from coordinator.webhook_deliveries e where e.webhook_id = w.id and e.status = 'waiting' order by e.id limit 1) d
    where w.paused_at is null;
end
$$;
comment on function coordinator.webhook_sample(timestamptz) is
  'Sample the metrics of webhooks. Internal.';
