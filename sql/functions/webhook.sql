-- Webhooks: events that the leading daemon sends to URLs.
--
-- Guarantees
--   In order: a webhook has one attempt at a time, of the oldest delivery that waits. A daemon that was paused may send again what another has
--   delivered meanwhile, with the same webhook-id; it delivers nothing else, since its claim is over.
--   At least once: a delivery is committed before its first attempt, together with the position in the log, and ends after a response.
--   A delivery that fails 10 times is dead: it stays, and the webhook goes on with the next one. After three days without a success, or a
--   response 410, the webhook is disabled.
--   No webhook delays another: see webhook_claim, which also divides the attempts among projects.
--
-- How it works. webhook_fill compares the log with topics: one pass from webhook_log.seq on for all webhooks that keep up, and one for each
-- that is behind, because it is new, was paused, or has too much waiting; those wait in the log. webhook_claim hands out what is due,
-- and webhook_finish stores what became of it. Both are called by the leader; two leaders do no harm.
--
-- Events of type webhook.dead are delivered to no webhook: two that fail would feed each other for ever.
--
-- Locks: webhook_log (webhook_fill alone), then webhooks, then their deliveries. webhook_fill skips webhooks that others have, and notes
-- them in webhook_log.late, so an open transaction holds up no other webhook.

insert into coordinator.event_types (type, key, data, meaning) values
  ('webhook.added',    'id of the webhook', '{topics}',                                     'A webhook was added.'),
  ('webhook.removed',  'id of the webhook', '{}',                                           'A webhook was removed, with its deliveries.'),
  ('webhook.paused',   'id of the webhook', '{reason}',                                     'A webhook was paused: its events wait in the log.'),
  ('webhook.resumed',  'id of the webhook', '{}',                                           'A webhook was resumed.'),
  ('webhook.rotated',  'id of the webhook', '{until}',                                      'A webhook has a new secret; until then, the former one signs as well.'),
  ('webhook.tested',   'id of the webhook', '{delivery,status,response,error}',             'The delivery of a test ended.'),
  ('webhook.redriven', 'id of the webhook', '{count}',                                      'Dead deliveries of a webhook wait again.'),
  ('webhook.dead',     'id of the webhook', '{delivery,message,type,attempts,response,error}', 'A delivery failed for the last time. No webhook gets this event.'),
  ('webhook.disabled', 'id of the webhook', '{reason,failing_since}',                       'A webhook was disabled: its receiver is gone, or failed for three days.');

insert into coordinator.rights (function, role) values
  ('webhook_add',        'manager'),
  ('webhook_deliveries', 'manager'),
  ('webhook_delivery',   'manager'),
  ('webhook_list',       'manager'),
  ('webhook_pause',      'manager'),
  ('webhook_redrive',    'manager'),
  ('webhook_remove',     'manager'),
  ('webhook_resume',     'manager'),
  ('webhook_rotate',     'manager'),
  ('webhook_show',       'manager'),
  ('webhook_test',       'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('webhooks',        32,      'webhooks',   'Webhooks of a project.'),
  ('webhook_url',     2000,    'characters', 'URL of a webhook.'),
  ('webhook_topics',  20,      'topics',     'Topics of a webhook.'),
  ('webhook_attempts', 10,     'attempts',   'Attempts of a delivery, after which it is dead.'),
  ('webhook_overlap', 2592000, 'seconds',    'Time for which the former secret of a webhook signs as well.');

create or replace view coordinator.webhooks_live with (security_barrier) as
  select p.name as project, w.id as webhook, w.url, w.topics,
         case when w.disabled then 'disabled' when w.paused_at is not null then 'paused' when w.failing_since is not null then 'failing' else 'active' end as status,
         w.waiting as waiting_count,
         (select count(*) from coordinator.webhook_deliveries d where d.webhook_id = w.id and d.status = 'dead') as dead_count,
         w.delivered_at, w.failing_since, w.error, w.before_until, w.paused_at, w.paused_by, w.pause_reason, w.actor, w.created_at, w.updated_at
  from coordinator.webhooks w join coordinator.projects p on p.id = w.project_id;
comment on view   coordinator.webhooks_live               is 'Webhooks without their secrets. Internal, since a URL may have a secret as well: managers call webhook_list.';
comment on column coordinator.webhooks_live.project       is 'Name of the project.';
comment on column coordinator.webhooks_live.webhook       is 'Number of the webhook.';
comment on column coordinator.webhooks_live.url           is 'Where it sends events.';
comment on column coordinator.webhooks_live.topics        is 'Types of the events, such as lock.broken or signal.*.';
comment on column coordinator.webhooks_live.status        is 'active, failing (the last attempt failed), paused, or disabled.';
comment on column coordinator.webhooks_live.waiting_count is 'Deliveries that wait, up to some hundred; more events wait in the log.';
comment on column coordinator.webhooks_live.dead_count    is 'Deliveries that are dead, and can be redriven.';
comment on column coordinator.webhooks_live.delivered_at  is 'When an event was last delivered.';
comment on column coordinator.webhooks_live.failing_since is 'Since when every attempt has failed; null: the last one succeeded.';
comment on column coordinator.webhooks_live.error         is 'Why the last attempt failed; null: it succeeded.';
comment on column coordinator.webhooks_live.before_until  is 'Until when the former secret signs as well; null: there was none.';
comment on column coordinator.webhooks_live.paused_at     is 'When it was paused or disabled; null: it is active.';
comment on column coordinator.webhooks_live.paused_by     is 'Who paused it.';
comment on column coordinator.webhooks_live.pause_reason  is 'Why it was paused or disabled.';
comment on column coordinator.webhooks_live.actor         is 'Who added it.';
comment on column coordinator.webhooks_live.created_at    is 'When it was added (database clock).';
comment on column coordinator.webhooks_live.updated_at    is 'When it was last rotated, paused or resumed (database clock).';

create or replace view coordinator.webhook_deliveries_live with (security_barrier) as
  select p.name as project, d.webhook_id as webhook, d.id as delivery, d.message, d.type, d.key, d.at, d.status, d.attempts,
         case when d.status = 'waiting' then d.due_at end as due_at, d.attempted_at, d.response, d.error, d.seconds
  from coordinator.webhook_deliveries d join coordinator.webhooks w on w.id = d.webhook_id join coordinator.projects p on p.id = w.project_id;
comment on view   coordinator.webhook_deliveries_live              is 'Deliveries of webhooks. Internal: managers call webhook_deliveries.';
comment on column coordinator.webhook_deliveries_live.project      is 'Name of the project.';
comment on column coordinator.webhook_deliveries_live.webhook      is 'Number of the webhook.';
comment on column coordinator.webhook_deliveries_live.delivery     is 'Number of the delivery.';
comment on column coordinator.webhook_deliveries_live.message      is 'The header webhook-id of each of its attempts.';
comment on column coordinator.webhook_deliveries_live.type         is 'Type of the event; reset: events are gone; test: a test.';
comment on column coordinator.webhook_deliveries_live.key          is 'Key of the event.';
comment on column coordinator.webhook_deliveries_live.at           is 'When the event happened (database clock).';
comment on column coordinator.webhook_deliveries_live.status       is 'waiting, delivered, or dead: no further attempt is made.';
comment on column coordinator.webhook_deliveries_live.attempts     is 'Attempts that have ended.';
comment on column coordinator.webhook_deliveries_live.due_at       is 'When the next attempt is due; null: it ended.';
comment on column coordinator.webhook_deliveries_live.attempted_at is 'When the last attempt ended (database clock).';
comment on column coordinator.webhook_deliveries_live.response     is 'HTTP status of the last response; null: there was none.';
comment on column coordinator.webhook_deliveries_live.error        is 'Why the last attempt failed.';
comment on column coordinator.webhook_deliveries_live.seconds      is 'Duration of the last attempt.';

create or replace function coordinator.webhook_draw() returns text
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64')
$$;
comment on function coordinator.webhook_draw() is
  'Draw a secret of 256 bits, from the server''s strong source of random numbers. Internal.';

create or replace function coordinator.webhook_hold(p_project text, p_webhook bigint) returns coordinator.webhooks
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_webhook coordinator.webhooks;
begin
  select * into v_webhook from coordinator.webhooks w where w.id = p_webhook and w.project_id = v_project for no key update;
  if not found then
    perform coordinator.webhook_missing(p_project, p_webhook);
  end if;
  return v_webhook;
end
$$;
comment on function coordinator.webhook_hold(text, bigint) is
  'Return the row of a webhook, locked. ZC223: there is no such webhook. Internal.';

create or replace function coordinator.webhook_missing(p_project text, p_webhook bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC223', message = format('project "%s" has no webhook %s', p_project, coalesce(p_webhook::text, 'null')),
    hint = 'See "coordinator webhook list".';
end
$$;
comment on function coordinator.webhook_missing(text, bigint) is
  'Raise ZC223 for a webhook that does not exist. Internal.';

create or replace function coordinator.webhook_row(p_webhook bigint) returns setof coordinator.webhooks_live
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select * from coordinator.webhooks_live l where l.webhook = p_webhook
$$;
comment on function coordinator.webhook_row(bigint) is
  'Return a webhook as readers see it. Internal.';

create or replace function coordinator.webhook_next(p_webhook bigint, p_now timestamptz) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  update coordinator.webhooks w
  set due_at = case when w.claimed_until > p_now then w.claimed_until else (
        select d.due_at from coordinator.webhook_deliveries d
        where d.webhook_id = w.id and d.status = 'waiting' and (w.paused_at is null or d.test) order by d.test desc, d.id limit 1) end
  where w.id = p_webhook
$$;
comment on function coordinator.webhook_next(bigint, timestamptz) is
  'Set when the next delivery of a webhook is due. Called after every change of what it depends on. No event. Internal.';

create or replace function coordinator.webhook_queue(
  p_webhook bigint, p_message text, p_type text, p_key text, p_at timestamptz, p_data text, p_now timestamptz, p_test boolean default false) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_body text := '{"type": ' || to_json(p_type) || ', "timestamp": "' || to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                 || '", "data": ' || p_data || '}';
  v_id   bigint;
begin
  insert into coordinator.webhook_deliveries (webhook_id, message, type, key, at, test, body, due_at)
  values (p_webhook, p_message, p_type, p_key, p_at, p_test, v_body, p_now) returning id into v_id;
  update coordinator.webhooks w set waiting = w.waiting + 1, waiting_bytes = w.waiting_bytes + octet_length(v_body) where w.id = p_webhook;
  return v_id;
end
$$;
comment on function coordinator.webhook_queue(bigint, text, text, text, timestamptz, text, timestamptz, boolean) is
  'Insert a delivery that waits; p_data: the JSON text of data in the body. No event. Internal.';

create or replace function coordinator.webhook_reset(p_webhook bigint, p_after bigint, p_data jsonb, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.webhook_queue(p_webhook, format('msg_%s_reset_%s', p_webhook, p_after), 'reset', null, p_now, p_data::text, p_now);
  update coordinator.webhooks w set after_seq = (p_data ->> 'seq')::bigint, behind = true where w.id = p_webhook;
  perform coordinator.webhook_next(p_webhook, p_now);
end
$$;
comment on function coordinator.webhook_reset(bigint, bigint, jsonb, timestamptz) is
  'Let a webhook deliver that events after p_after are gone, and continue after the event seq of p_data. No event. Internal.';

create or replace function coordinator.webhook_add(
  p_project text, p_url text, p_topics text[], p_after text default null, p_actor text default null)
returns setof coordinator.webhook_secret
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
  v_secret  text := coordinator.webhook_draw();
  v_after   bigint;
  v_id      bigint;
  v_first   record;
begin
  perform coordinator.check_text('the URL', p_url, 2000);
  if p_url !~ '^[!-~]+$' or p_url !~ '^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?([/?][^#\\]*)?$' then
    raise exception using errcode = 'ZC103', message = format('invalid URL "%s"', left(p_url, 200)),
      hint = 'Give an address such as https://example.com/hook, in ASCII, without user, password and #. Write other characters as %C3%A9, and other names of hosts as xn--….';
  elsif coalesce(cardinality(p_topics), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'the webhook has no topics', hint = 'Give topics such as lock.broken or signal.*, or * for all events.';
  elsif cardinality(p_topics) > 20 then
    raise exception using errcode = 'ZC102', message = format('%s topics; at most 20 are allowed', cardinality(p_topics)), hint = 'Use patterns such as signal.*, or * for all.';
  end if;
  perform coordinator.topic_pattern(p_topics);
  perform coordinator.project_hold(v_project);
  if (select count(*) from coordinator.webhooks w where w.project_id = v_project) >= 32 then
    raise exception using errcode = 'ZC102', message = 'the project would have more than 32 webhooks',
      hint = 'Remove one, or let one receiver distribute what it gets.';
  end if;
  select s.type, s.seq, s.data into v_first from coordinator.events_since(coalesce(p_after, 'now'), p_limit => 1) s;
  if p_after is null or p_after = 'now' then
    v_after := split_part(coordinator.event_head(), '.', 2)::bigint;
  else
    v_after := split_part(p_after, '.', 2)::bigint;
  end if;
  insert into coordinator.webhooks as w (project_id, url, topics, pattern, secret, after_seq, actor, created_at, updated_at)
  values (v_project, p_url, p_topics, coordinator.topic_pattern(p_topics), v_secret, v_after, v_actor, v_now, v_now)
  returning w.id into v_id;
  if v_first.type = 'reset' then
    perform coordinator.webhook_reset(v_id, v_after, v_first.data || jsonb_build_object('seq', v_first.seq), v_now);
  end if;
  perform coordinator.event_append('webhook.added', p_project, v_id::text, v_actor, v_now, jsonb_build_object('topics', p_topics));
  return query select v_id, v_secret;
end
$$;
comment on function coordinator.webhook_add(text, text, text[], text, text) is
  'Send events of a project to a URL: those of p_topics (lock.broken, signal.*, * for all) that are numbered from now on, or after the cursor p_after. Returns its number, and the secret with which requests are signed, which is shown only this once. The daemon refuses URLs that resolve to private addresses.';

create or replace function coordinator.webhook_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.webhooks_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  return query
    select l.* from coordinator.webhooks w cross join lateral coordinator.webhook_row(w.id) l
    where w.project_id = v_project and w.id > coalesce(p_after[1]::bigint, 0) order by w.id limit p_limit;
end
$$;
comment on function coordinator.webhook_list(text, text[], integer) is
  'List the webhooks of a project in order of creation, without their secrets. p_after: array[webhook] of the last row read.';

create or replace function coordinator.webhook_show(p_project text, p_webhook bigint)
returns setof coordinator.webhooks_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return query
    select l.* from coordinator.webhooks w cross join lateral coordinator.webhook_row(w.id) l where w.project_id = v_project and w.id = p_webhook;
  if not found then
    perform coordinator.webhook_missing(p_project, p_webhook);
  end if;
end
$$;
comment on function coordinator.webhook_show(text, bigint) is
  'Show a webhook, without its secret. ZC223: there is no such webhook.';

create or replace function coordinator.webhook_remove(p_project text, p_webhook bigint, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook coordinator.webhooks := coordinator.webhook_hold(p_project, p_webhook);
begin
  delete from coordinator.webhooks w where w.id = v_webhook.id;
  perform coordinator.event_append('webhook.removed', p_project, p_webhook::text, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.webhook_remove(text, bigint, text) is
  'Remove a webhook, with its deliveries. ZC223: there is no such webhook.';

create or replace function coordinator.webhook_pause(p_project text, p_webhook bigint, p_reason text default null, p_actor text default null)
returns setof coordinator.webhooks_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook coordinator.webhooks := coordinator.webhook_hold(p_project, p_webhook);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
begin
  if p_reason is not null then
    perform coordinator.check_reason(p_reason);
  end if;
  if v_webhook.paused_at is null then
    update coordinator.webhooks w set paused_at = v_now, paused_by = v_actor, pause_reason = p_reason, updated_at = v_now where w.id = p_webhook;
    perform coordinator.webhook_next(p_webhook, v_now);
    perform coordinator.event_append('webhook.paused', p_project, p_webhook::text, v_actor, v_now, jsonb_build_object('reason', p_reason));
  end if;
  return query select * from coordinator.webhook_row(p_webhook);
end
$$;
comment on function coordinator.webhook_pause(text, bigint, text, text) is
  'Pause a webhook: it delivers nothing but tests, and its events wait in the log. An attempt that has begun still ends. Pausing it again changes nothing. ZC223: there is no such webhook.';

create or replace function coordinator.webhook_resume(p_project text, p_webhook bigint, p_actor text default null)
returns setof coordinator.webhooks_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook coordinator.webhooks := coordinator.webhook_hold(p_project, p_webhook);
  v_now     timestamptz := coordinator.now_utc();
begin
  if v_webhook.paused_at is not null then
    update coordinator.webhook_deliveries d set due_at = v_now where d.webhook_id = p_webhook and d.status = 'waiting';
    update coordinator.webhooks w
    set paused_at = null, paused_by = null, pause_reason = null, disabled = false, failing_since = null, error = null, updated_at = v_now
    where w.id = p_webhook;
    perform coordinator.webhook_next(p_webhook, v_now);
    perform coordinator.event_append('webhook.resumed', p_project, p_webhook::text, coordinator.actor_name(p_actor), v_now, '{}');
  end if;
  return query select * from coordinator.webhook_row(p_webhook);
end
$$;
comment on function coordinator.webhook_resume(text, bigint, text) is
  'Resume a webhook that was paused or disabled: it continues where it was, or delivers a reset if the log was pruned meanwhile. Resuming it again changes nothing. ZC223: there is no such webhook.';

create or replace function coordinator.webhook_rotate(
  p_project text, p_webhook bigint, p_overlap interval default '1 day', p_actor text default null)
returns setof coordinator.webhook_secret
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook coordinator.webhooks := coordinator.webhook_hold(p_project, p_webhook);
  v_now     timestamptz := coordinator.now_utc();
  v_secret  text := coordinator.webhook_draw();
begin
  if p_overlap is null or extract(epoch from p_overlap) not between 0 and 2592000 then
    raise exception using errcode = 'ZC104',
      message = format('an overlap of %s is out of range', case when p_overlap is null then 'null' else coordinator.duration_text(p_overlap) end),
      hint = 'Give 0s to 30d.';
  end if;
  update coordinator.webhooks w set secret = v_secret, secret_before = v_webhook.secret, before_until = v_now + p_overlap, updated_at = v_now
  where w.id = p_webhook;
  perform coordinator.event_append('webhook.rotated', p_project, p_webhook::text, coordinator.actor_name(p_actor), v_now,
    jsonb_build_object('until', v_now + p_overlap));
  return query select p_webhook, v_secret;
end
$$;
comment on function coordinator.webhook_rotate(text, bigint, interval, text) is
  'Give a webhook a new secret, which is shown only this once. For p_overlap (0 to 30 days), the former one signs as well; an older one signs no more. ZC223: there is no such webhook.';

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
    raise exception using errcode = 'ZC102', message = format('10 tests of webhook %s wait already', p_webhook),
      hint = 'Wait until they have ended. Only a daemon that leads delivers.';
  end if;
  v_id := coordinator.webhook_queue(p_webhook, format('msg_%s_test_%s', p_webhook, left(replace(gen_random_uuid()::text, '-', ''), 16)), 'test', p_webhook::text, v_now,
    jsonb_build_object('project', p_project, 'webhook', p_webhook, 'actor', v_actor)::text, v_now, true);
  perform coordinator.webhook_next(p_webhook, v_now);
  return query select * from coordinator.webhook_deliveries_live l where l.delivery = v_id;
end
$$;
comment on function coordinator.webhook_test(text, bigint, text) is
  'Deliver a message of type test, once, before what waits, even if the webhook is paused. Returns its delivery; webhook_delivery shows what became of it. No event until it has ended. ZC223: there is no such webhook.';

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
    select p_project, d.webhook_id, d.id, d.message, d.type, d.key, d.at, d.status, d.attempts, case when d.status = 'waiting' then d.due_at end,
           d.attempted_at, d.response, d.error, d.seconds
    from coordinator.webhook_deliveries d
    where d.webhook_id = (select w.id from coordinator.webhooks w where w.project_id = v_project and w.id = p_webhook) and d.id < coalesce(p_after[1]::bigint, 9223372036854775807) and (p_status is null or d.status = p_status)
    order by d.id desc limit p_limit;
end
$$;
comment on function coordinator.webhook_deliveries(text, bigint, text, text[], integer) is
  'List deliveries of a webhook, newest first; p_status: waiting, delivered or dead. Of those that ended, the newest 1,000 are kept, for at most 30 days. p_after: array[delivery] of the last row read.';

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
  'Show a delivery. ZC223: there is none, or it is no longer kept.';

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
    perform coordinator.webhook_next(p_webhook, v_now);
    perform coordinator.event_append('webhook.redriven', p_project, p_webhook::text, coordinator.actor_name(p_actor), v_now, jsonb_build_object('count', v_count));
  end if;
  return v_count;
end
$$;
comment on function coordinator.webhook_redrive(text, bigint, bigint, text[], timestamptz, timestamptz, text) is
  'Deliver dead deliveries of a webhook again, in their order and before what waits, with the same webhook-id: one, or those of events of p_topics from p_since until p_until; by default all. Returns how many. Tests are not redriven. ZC223: there is no such webhook, or dead delivery.';

create or replace function coordinator.webhook_put(p_chunk coordinator.event_chunks, p_webhooks bigint[], p_after bigint, p_until bigint, p_now timestamptz)
returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_epoch text := (select r.epoch from coordinator.relay r);
  v_hit   record;
  v_count integer := 0;
begin
  for v_hit in
    select w.id as webhook, e.* from coordinator.chunk_events(p_chunk, p_after) e
    join coordinator.projects p on p.name = e.project join coordinator.webhooks w on w.project_id = p.id
    where w.id = any (p_webhooks) and e.seq > w.after_seq and e.seq <= p_until and e.type ~ w.pattern and e.type <> 'webhook.dead'
    order by w.id, e.seq
  loop
    perform coordinator.webhook_queue(v_hit.webhook,
      format('msg_%s_%s', v_hit.webhook, left(encode(sha256(convert_to(concat_ws(' ', v_hit.webhook, v_hit.seq, v_hit.transaction,
        extract(epoch from v_hit.at), v_hit.type, v_hit.key), 'UTF8')), 'hex'), 32)),
      v_hit.type, v_hit.key, v_hit.at,
      '{' || coordinator.event_members(v_epoch, v_hit.seq, v_hit.type, v_hit.project, v_hit.key, v_hit.actor, v_hit.at, coordinator.event_data(v_hit.data),
        v_hit.transaction, v_hit.more) || '}', p_now);
    v_count := v_count + 1;
  end loop;
  -- One that has something due keeps its place among the others.
  perform coordinator.webhook_next(w.id, p_now) from coordinator.webhooks w where w.id = any (p_webhooks) and w.due_at is null;
  return v_count;
end
$$;
comment on function coordinator.webhook_put(coordinator.event_chunks, bigint[], bigint, bigint, timestamptz) is
  'Insert deliveries of the events of a chunk, after p_after and up to p_until, for webhooks whose rows are locked. The number of an event and its transaction make the webhook-id, so that it stays the same after a fail-over. No event. Internal.';

create or replace function coordinator.webhook_fill(p_limit integer default 20) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_log   coordinator.webhook_log;
  v_floor bigint;
  v_first bigint;
  v_until bigint;
  v_chunk coordinator.event_chunks;
  v_ids   bigint[];
  v_hits  bigint[];
  v_lost  record;
  v_count integer := 0;
begin
  perform coordinator.check_page(p_limit);
  perform coordinator.check_isolation('webhooks are compared with the log');
  if not exists (select from coordinator.webhooks) then
    return null;
  end if;
  select * into v_log from coordinator.webhook_log for update skip locked;
  if not found then
    return 0;
  end if;
  -- Locks the log, see events_since: from here on no partition is dropped.
  perform from coordinator.events where false;
  select last_value into v_floor from coordinator.event_floor;
  -- Those that another transaction had continue on their own from there.
  for v_lost in
    select w.id from coordinator.webhooks w where w.id = any (array(select k::bigint from jsonb_object_keys(v_log.late) k)) for no key update skip locked
  loop
    update coordinator.webhooks w set behind = true, after_seq = greatest(w.after_seq, (v_log.late ->> w.id::text)::bigint) where w.id = v_lost.id;
    v_log.late := v_log.late - v_lost.id::text;
  end loop;
  select coalesce(jsonb_object_agg(l.key, l.value), '{}') into v_log.late
  from jsonb_each(v_log.late) l where exists (select from coordinator.webhooks w where w.id = l.key::bigint);
  -- A webhook that is not behind is at webhook_log.seq: if the floor has passed that, all of them read on their own.
  if v_log.seq < v_floor then
    update coordinator.webhooks w set behind = true, after_seq = greatest(w.after_seq, v_log.seq)
    where w.id = any (array(select f.id from coordinator.webhooks f where not f.behind and not v_log.late ? f.id::text for no key update skip locked));
    select v_log.late || coalesce(jsonb_object_agg(w.id, greatest(w.after_seq, v_log.seq)), '{}') into v_log.late
    from coordinator.webhooks w where not w.behind and not v_log.late ? w.id::text;
    v_log.seq := v_floor;
  end if;
  for v_lost in
    select w.id, w.after_seq from coordinator.webhooks w
    where w.behind and w.paused_at is null and w.waiting < 100 and w.waiting_bytes < 1048576 and w.after_seq < v_floor
    order by w.after_seq for no key update skip locked
  loop
    perform coordinator.webhook_reset(v_lost.id, v_lost.after_seq, jsonb_build_object('reason', 'pruned', 'floor', v_floor,
      'head', (select c.last_seq from coordinator.event_chunks c order by c.first_seq desc limit 1), 'seq', v_floor), v_now);
    v_count := v_count + 1;
  end loop;
  for v_run in 1..p_limit loop
    -- First whoever is behind, beginning with the one that is farthest behind.
    select w.after_seq into v_first from coordinator.webhooks w
    where w.behind and w.paused_at is null and w.waiting < 100 and w.waiting_bytes < 1048576 and w.after_seq < v_log.seq
    order by w.after_seq limit 1 for no key update skip locked;
    if found then
      v_chunk := coordinator.event_chunk_after(v_first);
      v_until := least(v_chunk.last_seq, v_log.seq);
      v_ids := array(select w.id from coordinator.webhooks w
                     where w.behind and w.paused_at is null and w.waiting < 100 and w.waiting_bytes < 1048576 and w.after_seq >= v_first and w.after_seq < v_until
                     order by w.after_seq for no key update skip locked);
      perform coordinator.webhook_put(v_chunk, v_ids, v_first, v_until, v_now);
      update coordinator.webhooks w set after_seq = v_until where w.id = any (v_ids);
      v_count := v_count + 1;
      continue;
    end if;
    -- Those that have caught up, and new ones.
    update coordinator.webhooks w set behind = false
    where w.id = any (array(select b.id from coordinator.webhooks b
                            where b.behind and b.paused_at is null and b.waiting < 100 and b.waiting_bytes < 1048576 and b.after_seq >= v_log.seq
                            for no key update skip locked));
    select min(w.after_seq) into v_first from coordinator.webhooks w where not w.behind;
    exit when v_first is null;
    v_log.seq := greatest(v_log.seq, v_first);
    v_chunk := coordinator.event_chunk_after(v_log.seq);
    exit when v_chunk.first_seq is null;
    v_hits := array(select distinct w.id from coordinator.chunk_events(v_chunk, v_log.seq) e
                    join coordinator.projects p on p.name = e.project join coordinator.webhooks w on w.project_id = p.id
                    where not w.behind and e.seq > w.after_seq and e.type ~ w.pattern and e.type <> 'webhook.dead' and not v_log.late ? w.id::text);
    v_ids := array(select w.id from coordinator.webhooks w where w.id = any (v_hits) and not w.behind order by w.id for no key update skip locked);
    select v_log.late || coalesce(jsonb_object_agg(h.id, v_log.seq), '{}') into v_log.late from unnest(v_hits) h (id) where h.id <> all (v_ids);
    -- What cannot take them now leaves them in the log.
    update coordinator.webhooks w set behind = true, after_seq = greatest(w.after_seq, v_log.seq)
    where w.id = any (v_ids) and (w.paused_at is not null or w.waiting >= 100 or w.waiting_bytes >= 1048576);
    v_ids := array(select w.id from coordinator.webhooks w where w.id = any (v_ids) and not w.behind);
    if v_ids <> '{}' then
      perform coordinator.webhook_put(v_chunk, v_ids, v_log.seq, v_chunk.last_seq, v_now);
    end if;
    v_log.seq := v_chunk.last_seq;
    v_count := v_count + 1;
  end loop;
  update coordinator.webhook_log l set seq = v_log.seq, late = v_log.late where l.seq <> v_log.seq or l.late <> v_log.late;
  return v_count;
end
$$;
comment on function coordinator.webhook_fill(integer) is
  'Compare up to p_limit chunks of the log with the topics of webhooks, and insert what has to be delivered; returns how much it did, or null if there are no webhooks. Repeat until 0. No event.';

create or replace function coordinator.webhook_work_of(p_webhook bigint, p_now timestamptz) returns setof coordinator.webhook_work
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select w.id, p.name, w.claim, d.id, d.message, w.url,
         array[w.secret] || case when w.before_until > p_now then array[w.secret_before] else '{}' end, d.body, d.attempts + 1
  from coordinator.webhooks w join coordinator.projects p on p.id = w.project_id
  cross join lateral (
    select * from coordinator.webhook_deliveries d
    where d.webhook_id = w.id and d.status = 'waiting' and (w.paused_at is null or d.test) order by d.test desc, d.id limit 1) d
  where w.id = p_webhook
$$;
comment on function coordinator.webhook_work_of(bigint, timestamptz) is
  'Return what a webhook that is claimed has to deliver next. Internal.';

create or replace function coordinator.webhook_claim(p_limit integer default 64, p_slow integer default 32, p_lease interval default '1 minute')
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
  -- Whose daemon did not finish in time: perhaps nothing is left to deliver.
  v_ids := array(select w.id from coordinator.webhooks w where w.due_at <= v_now and w.claimed_until <= v_now for no key update skip locked);
  update coordinator.webhooks w set claimed_until = null where w.id = any (v_ids);
  perform coordinator.webhook_next(i.id, v_now) from unnest(v_ids) i (id);
  -- Projects take turns: first those with the fewest attempts in progress.
  select array_agg(r.id order by r.place, r.due_at) into v_ids from (
    select s.*, row_number() over (partition by s.slow order by s.place, s.due_at) as slow_place from (
      select w.id, w.due_at, w.slow,
             row_number() over (partition by w.project_id order by w.due_at, w.id)
             + (select count(*) from coordinator.webhooks c where c.project_id = w.project_id and c.claimed_until > v_now) as place,
             row_number() over (partition by w.project_id, w.slow order by w.due_at, w.id)
             + (select count(*) from coordinator.webhooks c where c.project_id = w.project_id and c.claimed_until > v_now and c.slow = w.slow) as alike
      from coordinator.webhooks w where w.due_at <= v_now) s
    where s.place <= 16 and (not s.slow or s.alike <= 8)) r
  where not r.slow or r.slow_place <= p_slow - (select count(*) from coordinator.webhooks c where c.claimed_until > v_now and c.slow);
  v_ids := array(select w.id from coordinator.webhooks w join unnest(v_ids) with ordinality i (id, place) on i.id = w.id
                 where w.due_at <= v_now order by i.place limit p_limit for no key update of w skip locked);
  update coordinator.webhooks w set claim = w.claim + 1, claimed_until = v_now + p_lease, due_at = v_now + p_lease, handed = false where w.id = any (v_ids);
  return query select k.* from unnest(v_ids) i (id) cross join lateral coordinator.webhook_work_of(i.id, v_now) k;
end
$$;
comment on function coordinator.webhook_claim(integer, integer, interval) is
  'Claim up to p_limit webhooks that have something to deliver, for p_lease: of a project at most 16, of those whose last attempt was slow or failed at most p_slow, and 8 of a project. No event.';

create or replace function coordinator.webhook_finish(
  p_webhook bigint, p_claim bigint, p_delivery bigint, p_seconds double precision, p_response integer default null, p_error text default null,
  p_retry interval default null, p_more boolean default true, p_lease interval default '1 minute')
returns setof coordinator.webhook_work
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_webhook  coordinator.webhooks;
  v_delivery coordinator.webhook_deliveries;
  v_project  text;
  v_status   text;
  v_reason   text;
begin
  perform coordinator.check_ttl(p_lease);
  select * into v_webhook from coordinator.webhooks w where w.id = p_webhook and w.claim = p_claim and w.claimed_until is not null for no key update;
  if not found then
    -- Another daemon has claimed it, or it was removed. Or this call is repeated, because its answer was lost.
    return query select k.* from coordinator.webhooks w cross join lateral coordinator.webhook_work_of(w.id, v_now) k
                 where w.id = p_webhook and w.claim = p_claim + 1 and w.handed and w.claimed_until > v_now and p_more;
    return;
  end if;
  select * into v_delivery from coordinator.webhook_deliveries d where d.id = p_delivery and d.webhook_id = p_webhook and d.status = 'waiting';
  if not found then
    return;
  end if;
  select p.name into v_project from coordinator.projects p where p.id = v_webhook.project_id;
  v_status := case when p_error is null then 'delivered'
                   when v_delivery.test or v_delivery.attempts >= 9 or p_response = 410 then 'dead' else 'waiting' end;
  update coordinator.webhook_deliveries d
  set status = v_status, attempts = d.attempts + 1, attempted_at = v_now, response = p_response, error = left(p_error, 500), seconds = p_seconds,
      body = case when v_status <> 'delivered' then d.body end, ended_at = case when v_status <> 'waiting' then v_now end,
      due_at = v_now + greatest(coordinator.job_backoff('5 seconds', d.attempts + 1), least(coalesce(p_retry, '0'), interval '1 hour'))
  where d.id = p_delivery;
  if v_status <> 'waiting' then
    v_webhook.waiting := v_webhook.waiting - 1;
    v_webhook.waiting_bytes := v_webhook.waiting_bytes - octet_length(v_delivery.body);
  end if;
  if not v_delivery.test then
    v_webhook.error := left(p_error, 500);
    v_webhook.failing_since := case when p_error is not null then coalesce(v_webhook.failing_since, v_now) end;
    v_webhook.delivered_at := case when p_error is null then v_now else v_webhook.delivered_at end;
    v_reason := case when p_response = 410 then 'The receiver is gone: it responded with 410.'
                     when v_webhook.failing_since <= v_now - interval '3 days' then 'Every attempt has failed for three days.' end;
  end if;
  if v_reason is not null and v_webhook.paused_at is null then
    v_webhook.paused_at := v_now;
    v_webhook.paused_by := 'coordinator';
    v_webhook.pause_reason := v_reason;
    v_webhook.disabled := true;
    perform coordinator.event_append('webhook.disabled', v_project, p_webhook::text, 'coordinator', v_now,
      jsonb_build_object('reason', v_reason, 'failing_since', v_webhook.failing_since));
  end if;
  update coordinator.webhooks w
  set waiting = v_webhook.waiting, waiting_bytes = v_webhook.waiting_bytes, claimed_until = null, slow = p_error is not null or p_seconds > 1,
      error = v_webhook.error, failing_since = v_webhook.failing_since, delivered_at = v_webhook.delivered_at, paused_at = v_webhook.paused_at,
      paused_by = v_webhook.paused_by, pause_reason = v_webhook.pause_reason, disabled = v_webhook.disabled
  where w.id = p_webhook;
  if v_delivery.test then
    perform coordinator.event_append('webhook.tested', v_project, p_webhook::text, 'coordinator', v_now,
      jsonb_build_object('delivery', p_delivery, 'status', v_status, 'response', p_response, 'error', left(p_error, 500)));
  elsif v_status = 'dead' then
    perform coordinator.event_append('webhook.dead', v_project, p_webhook::text, 'coordinator', v_now,
      jsonb_build_object('delivery', p_delivery, 'message', v_delivery.message, 'type', v_delivery.type, 'attempts', v_delivery.attempts + 1,
                         'response', p_response, 'error', left(p_error, 500)));
  end if;
  perform coordinator.webhook_next(p_webhook, v_now);
  update coordinator.webhooks w set due_at = v_now where w.id = p_webhook and w.due_at < v_now; -- after those that wait for a slot
  if p_more and p_error is null then
    update coordinator.webhooks w set claim = w.claim + 1, claimed_until = v_now + p_lease, due_at = v_now + p_lease, handed = true
    where w.id = p_webhook and w.due_at <= v_now;
    if found then
      return query select * from coordinator.webhook_work_of(p_webhook, v_now);
    end if;
  end if;
end
$$;
comment on function coordinator.webhook_finish(bigint, bigint, bigint, double precision, integer, text, interval, boolean, interval) is
  'Store how an attempt ended: delivered, or p_error; p_response: the HTTP status; p_retry: what the receiver asks for. Without an error, p_more claims the next delivery of the webhook and returns it. Nothing happens if another daemon has claimed the webhook since; repeated, it returns the same.';

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
    select r.id from (
      select e.id, e.ended_at, row_number() over newest as place, sum(octet_length(e.body)) over newest as bytes
      from coordinator.webhook_deliveries e where e.status <> 'waiting'
      window newest as (partition by e.webhook_id, e.status order by e.id desc)) r
    where r.place > 1000 or r.bytes > 16777216 or r.ended_at < v_now - interval '30 days'
    order by r.id limit p_limit));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.webhook_prune(integer) is
  'Delete up to p_limit ended deliveries: of each webhook, the newest 1,000 delivered and 1,000 dead ones stay, with at most 16 MiB of bodies, for 30 days. Repeat until 0. No event.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_webhooks', 'webhook_sample', 'gauge', '{state}', '', 'Webhooks: active, paused or disabled.'),
  ('coordinator_webhook_deliveries', 'webhook_sample', 'gauge', '{status}', '', 'Deliveries that wait, and those that are dead (of which at most 10,000 are counted).'),
  ('coordinator_webhook_oldest_seconds', 'webhook_sample', 'gauge', '{}', 'seconds', 'Age of the oldest event that waits to be delivered, except to paused webhooks.');

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
