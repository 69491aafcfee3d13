-- Webhooks: events that the leading daemon sends to URLs.
--
-- Guarantees
--   In order: a webhook has one attempt at a time, of its oldest waiting delivery. A daemon that was paused may send a delivery again that
--   another daemon has delivered meanwhile, with the same webhook-id. It delivers nothing else, because its claim is over.
--   At least once: a delivery is committed before its first attempt, together with the position in the log, and ends after a response.
--   A delivery that fails 10 times is dead: it is kept, and the webhook continues with the next one. After three days without a success,
--   or a response 410, the webhook is disabled.
--   No webhook delays another, and the memory of a daemon is bounded: webhook_claim divides slots among webhooks and projects.
--
-- How it works. webhook_fill compares the log with topics: one pass from webhook_log.seq for all webhooks that keep up, and one for each
-- webhook that is behind because it is new, was paused, or has too many waiting deliveries; their events wait in the log (fill.sql).
-- webhook_claim returns what is due, several deliveries of a webhook at once, and webhook_finish stores the results (attempt.sql). The
-- leader calls both; two leaders do no harm.
--
-- Events of type webhook.dead are delivered to no webhook, because two failing webhooks would feed each other for ever.
--
-- Locks: webhook_log (only webhook_fill), then webhooks, then their deliveries. webhook_fill skips webhooks that other transactions have
-- locked, and records them in webhook_log.late, so an open transaction delays no other webhook.

insert into coordinator.event_types (type, key, data, meaning) values
  ('webhook.added',    'id of the webhook', '{topics}',                                     'A webhook was added.'),
  ('webhook.removed',  'id of the webhook', '{}',                                           'A webhook was removed with its deliveries.'),
  ('webhook.paused',   'id of the webhook', '{reason}',                                     'A webhook was paused. Its events wait in the log.'),
  ('webhook.resumed',  'id of the webhook', '{}',                                           'A webhook was resumed.'),
  ('webhook.rotated',  'id of the webhook', '{until}',                                      'A webhook got a new secret; until: how long the previous secret also signs.'),
  ('webhook.tested',   'id of the webhook', '{delivery,status,response,error}',             'A test delivery ended.'),
  ('webhook.redriven', 'id of the webhook', '{count}',                                      'Dead deliveries of a webhook were queued again.'),
  ('webhook.dead',     'id of the webhook', '{delivery,message,type,attempts,response,error}', 'A delivery failed for the last time. This event is not sent to webhooks.'),
  ('webhook.disabled', 'id of the webhook', '{reason,failing_since}',                       'A webhook was disabled because its receiver is gone or has failed for three days.');

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
  ('webhooks',        32,      'webhooks',   'Webhooks per project.'),
  ('webhook_url',     2000,    'characters', 'URL of a webhook.'),
  ('webhook_topics',  20,      'topics',     'Topics per webhook.'),
  ('webhook_attempts', 10,     'attempts',   'Attempts per delivery; after the last one, it is dead.'),
  ('webhook_overlap', 2592000, 'seconds',    'Longest time during which the previous secret of a webhook also signs.');

create or replace view coordinator.webhooks_live with (security_barrier) as
  select p.name as project, w.id as webhook, w.url, w.topics,
         case when w.disabled then 'disabled' when w.paused_at is not null then 'paused' when w.failing_since is not null then 'failing' else 'active' end as status,
         w.waiting as waiting_count,
         (select count(*) from coordinator.webhook_deliveries d where d.webhook_id = w.id and d.status = 'dead') as dead_count,
         w.delivered_at, w.failing_since, w.error, w.before_until, w.paused_at, w.paused_by, w.pause_reason, w.actor, w.created_at, w.updated_at
  from coordinator.webhooks w join coordinator.projects p on p.id = w.project_id;
comment on view   coordinator.webhooks_live               is 'Webhooks without their secrets. Internal, since a URL may contain a secret as well: managers call webhook_list.';
comment on column coordinator.webhooks_live.project       is 'Name of the project.';
comment on column coordinator.webhooks_live.webhook       is 'Number of the webhook.';
comment on column coordinator.webhooks_live.url           is 'URL that receives the events.';
comment on column coordinator.webhooks_live.topics        is 'Event types, such as lock.broken or signal.*.';
comment on column coordinator.webhooks_live.status        is 'active, failing (the last attempt failed), paused, or disabled.';
comment on column coordinator.webhooks_live.waiting_count is 'Waiting deliveries, up to a few hundred; further events wait in the log.';
comment on column coordinator.webhooks_live.dead_count    is 'Dead deliveries, which can be redriven.';
comment on column coordinator.webhooks_live.delivered_at  is 'When an event was last delivered.';
comment on column coordinator.webhooks_live.failing_since is 'Start of the current series of failed attempts; null: the last attempt succeeded.';
comment on column coordinator.webhooks_live.error         is 'Why the last attempt failed; null: it succeeded.';
comment on column coordinator.webhooks_live.before_until  is 'Until when the previous secret also signs; null: there is none.';
comment on column coordinator.webhooks_live.paused_at     is 'When it was paused or disabled; null: it is active.';
comment on column coordinator.webhooks_live.paused_by     is 'Who paused it.';
comment on column coordinator.webhooks_live.pause_reason  is 'Why it was paused or disabled.';
comment on column coordinator.webhooks_live.actor         is 'Who added it.';
comment on column coordinator.webhooks_live.created_at    is 'When it was added (database clock).';
comment on column coordinator.webhooks_live.updated_at    is 'When it was last rotated, paused or resumed (database clock).';

create or replace function coordinator.webhook_draw() returns text
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64')
$$;
comment on function coordinator.webhook_draw() is
  'Generate a secret of 256 bits from the server''s cryptographically strong random source. Internal.';

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
      hint = 'Give an address such as https://example.com/hook, in ASCII, without user, password and #. Percent-encode other characters, as in %C3%A9, and write international host names in Punycode (xn--…).';
  elsif coalesce(cardinality(p_topics), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'the webhook has no topics', hint = 'Give topics such as lock.broken or signal.*, or * for all events.';
  elsif cardinality(p_topics) > 20 then
    raise exception using errcode = 'ZC102', message = format('%s topics; at most 20 are allowed', cardinality(p_topics)), hint = 'Use patterns such as signal.*, or * for all.';
  end if;
  perform coordinator.check_topics(p_topics);
  perform coordinator.project_hold(v_project);
  if (select count(*) from coordinator.webhooks w where w.project_id = v_project) >= 32 then
    raise exception using errcode = 'ZC102', message = 'the project would have more than 32 webhooks',
      hint = 'Delete one, or let one receiver forward events to others.';
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
  'Send events of a project to a URL: those of p_topics (lock.broken, signal.*, * for all) that are numbered from now on, or after the cursor p_after. Return the webhook''s number and the secret that signs its requests, which is shown only this once. The daemon refuses URLs that resolve to private addresses.';

create or replace function coordinator.webhook_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.webhooks_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  perform coordinator.check_page(p_limit, p_after, '{number}');
  return query
    select * from coordinator.webhooks_live l
    where l.project = p_project and l.webhook > coalesce(p_after[1]::bigint, 0) order by l.webhook limit p_limit;
end
$$;
comment on function coordinator.webhook_list(text, text[], integer) is
  'List the webhooks of a project in order of creation, without their secrets. p_after: array[webhook] of the last row read.';

create or replace function coordinator.webhook_show(p_project text, p_webhook bigint)
returns setof coordinator.webhooks_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  return query select * from coordinator.webhooks_live l where l.project = p_project and l.webhook = p_webhook;
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
  'Remove a webhook with its deliveries. ZC223: there is no such webhook.';

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
  perform coordinator.check_reason(p_reason);
  if v_webhook.paused_at is null then
    update coordinator.webhooks w set paused_at = v_now, paused_by = v_actor, pause_reason = p_reason, updated_at = v_now where w.id = p_webhook;
    perform coordinator.webhook_next(array[p_webhook], v_now);
    perform coordinator.event_append('webhook.paused', p_project, p_webhook::text, v_actor, v_now, jsonb_build_object('reason', p_reason));
  end if;
  return query select * from coordinator.webhooks_live l where l.webhook = p_webhook;
end
$$;
comment on function coordinator.webhook_pause(text, bigint, text, text) is
  'Pause a webhook: it delivers only tests, and its events wait in the log. Deliveries that a daemon has already claimed are still sent. Pausing it again changes nothing. ZC223: there is no such webhook.';

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
    perform coordinator.webhook_next(array[p_webhook], v_now);
    perform coordinator.event_append('webhook.resumed', p_project, p_webhook::text, coordinator.actor_name(p_actor), v_now, '{}');
  end if;
  return query select * from coordinator.webhooks_live l where l.webhook = p_webhook;
end
$$;
comment on function coordinator.webhook_resume(text, bigint, text) is
  'Resume a paused or disabled webhook. It continues where it stopped, or delivers a reset if the log has been pruned since. Resuming it again changes nothing. ZC223: there is no such webhook.';

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
  'Replace the secret of a webhook; the new secret is shown only this once. For p_overlap (0 to 30 days), the previous secret also signs; older ones no longer do. ZC223: there is no such webhook.';
