-- Comparing the log with the topics of webhooks: see the head of webhook.sql.

create or replace function coordinator.webhook_takes(p_webhook coordinator.webhooks) returns boolean
language sql immutable parallel safe
return p_webhook.paused_at is null and p_webhook.waiting < 100 and p_webhook.waiting_bytes < 1048576;
comment on function coordinator.webhook_takes(coordinator.webhooks) is
  'Return whether a webhook accepts further events now; otherwise they stay in the log. The index webhooks_behind_idx has the same condition. Internal.';

create or replace function coordinator.webhook_reset(p_webhook bigint, p_after bigint, p_data jsonb, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.webhook_queue(p_webhook, p_after::text, 'reset', null, p_data, p_now);
  update coordinator.webhooks w set after_seq = (p_data ->> 'seq')::bigint, behind = true where w.id = p_webhook;
end
$$;
comment on function coordinator.webhook_reset(bigint, bigint, jsonb, timestamptz) is
  'Let a webhook deliver a reset, which says that events after p_after are gone, and continue after the event seq of p_data. No event. Internal.';

create or replace function coordinator.webhook_put(p_chunk coordinator.event_chunks, p_webhooks bigint[], p_after bigint, p_until bigint, p_now timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan -- planning takes longer than reading a chunk
as $$
declare
  v_epoch text := (select r.epoch from coordinator.relay r);
begin
  with queued as (
    insert into coordinator.webhook_deliveries (webhook_id, message, type, key, at, body, due_at)
    select w.id,
           format('msg_%s_%s', w.id, left(encode(sha256(convert_to(concat_ws(' ', w.id, e.seq, e.transaction, extract(epoch from e.at), e.type, e.key), 'UTF8')), 'hex'), 32)),
           e.type, e.key, e.at,
           coordinator.webhook_body(e.type, e.at, '{' || coordinator.event_members(v_epoch, e.seq, e.type, e.project, e.key, e.actor, e.at,
             e.data, e.transaction, e.more, e.traceparent) || '}'),
           p_now
    from coordinator.chunk_events(p_chunk, p_after) e
    join coordinator.projects p on p.name = e.project join coordinator.webhooks w on w.project_id = p.id
    where w.id = any (p_webhooks) and e.seq > w.after_seq and e.seq <= p_until and e.type ~ w.pattern and e.type <> 'webhook.dead'
    order by w.id, e.seq
    returning webhook_id, octet_length(body) as bytes)
  update coordinator.webhooks w set waiting = w.waiting + q.count, waiting_bytes = w.waiting_bytes + q.bytes
  from (select q.webhook_id, count(*) as count, sum(q.bytes) as bytes from queued q group by q.webhook_id) q where w.id = q.webhook_id;
  -- A webhook that already has a due delivery keeps its place among the others.
  perform coordinator.webhook_next(array(select w.id from coordinator.webhooks w where w.id = any (p_webhooks) and w.due_at is null), p_now);
end
$$;
comment on function coordinator.webhook_put(coordinator.event_chunks, bigint[], bigint, bigint, timestamptz) is
  'Insert deliveries of the events of a chunk, after p_after and up to p_until, for webhooks whose rows are locked. The number of an event and its transaction make the webhook-id, so that it stays the same after a fail-over. No event. Internal.';

create or replace function coordinator.webhook_put_each(p_chunk coordinator.event_chunks, p_webhooks bigint[], p_after bigint, p_until bigint, p_now timestamptz)
returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_of   record;
  v_done bigint[] := '{}';
begin
  begin -- reads the chunk once
    perform coordinator.webhook_put(p_chunk, p_webhooks, p_after, p_until, p_now);
    return p_webhooks;
  exception when others then
    null;
  end;
  for v_of in
    select w.project_id, array_agg(w.id) as ids from coordinator.webhooks w where w.id = any (p_webhooks) group by 1 order by 1
  loop
    begin
      perform coordinator.webhook_put(p_chunk, v_of.ids, p_after, p_until, p_now);
      v_done := v_done || v_of.ids;
    exception when others then
      perform coordinator.project_passed_over('webhook_fill', v_of.project_id, sqlerrm);
    end;
  end loop;
  return v_done;
end
$$;
comment on function coordinator.webhook_put_each(coordinator.event_chunks, bigint[], bigint, bigint, timestamptz) is
  'Call webhook_put, for each project apart if that fails (see project_each); return the webhooks whose deliveries were inserted. Internal.';

create or replace function coordinator.webhook_fill(p_limit integer default 20) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '100ms'
set plan_cache_mode = force_generic_plan -- planning takes longer than reading a chunk
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
  v_done  bigint[];
  v_late  bigint[] := '{}'; -- set aside until the next run
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
  -- Locks the log (see events_since): from here on, no partition is dropped.
  perform from coordinator.events where false;
  select last_value into v_floor from coordinator.event_floor;
  -- Webhooks that another transaction had locked continue on their own from there.
  for v_lost in
    select w.id from coordinator.webhooks w where w.id = any (array(select k::bigint from jsonb_object_keys(v_log.late) k)) for no key update skip locked
  loop
    update coordinator.webhooks w set behind = true, after_seq = greatest(w.after_seq, (v_log.late ->> w.id::text)::bigint) where w.id = v_lost.id;
    v_log.late := v_log.late - v_lost.id::text;
  end loop;
  select coalesce(jsonb_object_agg(l.key, l.value), '{}') into v_log.late
  from jsonb_each(v_log.late) l where exists (select from coordinator.webhooks w where w.id = l.key::bigint);
  -- A webhook that keeps up is at webhook_log.seq. If the floor has passed that, all of them read on their own.
  if v_log.seq < v_floor then
    update coordinator.webhooks w set behind = true, after_seq = greatest(w.after_seq, v_log.seq)
    where w.id = any (array(select f.id from coordinator.webhooks f where not f.behind and not v_log.late ? f.id::text for no key update skip locked));
    select v_log.late || coalesce(jsonb_object_agg(w.id, greatest(w.after_seq, v_log.seq)), '{}') into v_log.late
    from coordinator.webhooks w where not w.behind and not v_log.late ? w.id::text;
    v_log.seq := v_floor;
  end if;
  for v_lost in
    select w.id, w.after_seq from coordinator.webhooks w
    where w.behind and coordinator.webhook_takes(w) and w.after_seq < v_floor
    order by w.after_seq for no key update skip locked
  loop
    perform coordinator.webhook_reset(v_lost.id, v_lost.after_seq, jsonb_build_object('reason', 'pruned', 'floor', v_floor,
      'head', (select c.last_seq from coordinator.event_chunks c order by c.first_seq desc limit 1), 'seq', v_floor), v_now);
    v_count := v_count + 1;
  end loop;
  for v_run in 1..p_limit loop
    -- First the webhooks that are behind, the farthest behind first.
    select w.after_seq into v_first from coordinator.webhooks w
    where w.behind and coordinator.webhook_takes(w) and w.after_seq < v_log.seq and w.id <> all (v_late)
    order by w.after_seq limit 1 for no key update skip locked;
    if found then
      v_chunk := coordinator.event_chunk_after(v_first);
      v_until := least(v_chunk.last_seq, v_log.seq);
      v_ids := array(select w.id from coordinator.webhooks w
                     where w.behind and coordinator.webhook_takes(w) and w.after_seq >= v_first and w.after_seq < v_until and w.id <> all (v_late)
                     order by w.after_seq for no key update skip locked);
      v_done := coordinator.webhook_put_each(v_chunk, v_ids, v_first, v_until, v_now);
      v_late := v_late || array(select i from unnest(v_ids) i where i <> all (v_done));
      update coordinator.webhooks w set after_seq = v_until where w.id = any (v_done);
      v_count := v_count + (v_done <> '{}')::integer;
      continue;
    end if;
    -- Then those that have caught up, and new ones.
    update coordinator.webhooks w set behind = false
    where w.id = any (array(select b.id from coordinator.webhooks b
                            where b.behind and coordinator.webhook_takes(b) and b.after_seq >= v_log.seq
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
    -- For webhooks that cannot accept them now, events stay in the log.
    update coordinator.webhooks w set behind = true, after_seq = greatest(w.after_seq, v_log.seq)
    where w.id = any (v_ids) and not coordinator.webhook_takes(w);
    v_ids := array(select w.id from coordinator.webhooks w where w.id = any (v_ids) and not w.behind);
    if v_ids <> '{}' then
      v_done := coordinator.webhook_put_each(v_chunk, v_ids, v_log.seq, v_chunk.last_seq, v_now);
      select v_log.late || coalesce(jsonb_object_agg(i, v_log.seq), '{}') into v_log.late from unnest(v_ids) i where i <> all (v_done);
    end if;
    v_log.seq := v_chunk.last_seq;
    v_count := v_count + 1;
  end loop;
  update coordinator.webhook_log l set seq = v_log.seq, late = v_log.late where l.seq <> v_log.seq or l.late <> v_log.late;
  return v_count;
end
$$;
comment on function coordinator.webhook_fill(integer) is
  'Compare up to p_limit chunks of the log with the topics of webhooks, and insert deliveries. Return how much was done, or null if there are no webhooks. Repeat until 0. No event.';
