-- Signals: keys of a project with values, versions and TTLs. For every reader and writer, a signal is absent from the instant at which
-- it expires; the loop only deletes the row and emits the event.

insert into coordinator.event_types (type, key, data, meaning) values
  ('signal.set',     'key of the signal', '{value,version,critical,agent_id,expires_at}', 'A signal was set.'),
  ('signal.deleted', 'key of the signal', '{version}',                                    'A caller deleted a signal.'),
  ('signal.cleared', 'key of the signal', '{version,rule}',                               'A rule deleted a signal; rule: the key that triggered the rule.'),
  ('signal.ended',   'key of the signal', '{version,agent_id}',                           'An ephemeral signal ended with its agent.'),
  ('signal.expired', 'key of the signal', '{version,expires_at}',                         'A signal expired. Readers have not seen it since expires_at.');

insert into coordinator.rights (function, role) values
  ('assert_signal', 'agent'),
  ('signal_get',    'reader'),
  ('signal_list',   'reader'),
  ('signal_delete', 'agent'),
  ('signal_set',    'agent');

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('assert_signal', 'condition', 'signal_enter'),
  ('signal_delete', 'write',     'signal_enter'),
  ('signal_set',    'write',     'signal_enter');

create or replace view coordinator.signals_live with (security_barrier) as
  select p.name as project, s.key, s.value, s.version, s.critical, s.agent_id, s.actor, s.created_at, s.updated_at, s.expires_at
  from coordinator.signals s join coordinator.projects p on p.id = s.project_id
  where (s.expires_at is null or s.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.signals_live            is 'Signals that are set and have not expired.';
comment on column coordinator.signals_live.project    is 'Name of the project.';
comment on column coordinator.signals_live.key        is 'Key; segments are separated by /.';
comment on column coordinator.signals_live.value      is 'Any JSON value.';
comment on column coordinator.signals_live.version    is 'Version; grows with each set, even after a fail-over. Compare it only for equality.';
comment on column coordinator.signals_live.critical   is 'True: it never expires.';
comment on column coordinator.signals_live.agent_id   is 'Agent with which an ephemeral signal ends; null for others.';
comment on column coordinator.signals_live.actor      is 'Who last set it.';
comment on column coordinator.signals_live.created_at is 'When the key was created.';
comment on column coordinator.signals_live.updated_at is 'When it was last set.';
comment on column coordinator.signals_live.expires_at is 'When it expires; null if critical.';

create or replace function coordinator.signal_refuse(p_key text, p_expect bigint, p_present bigint) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC301',
    message = case when p_present is null then format('signal "%s" is not set, and version %s was expected', p_key, p_expect)
                   when p_expect = 0 then format('signal "%s" is already set, at version %s', p_key, p_present)
                   else format('signal "%s" is at version %s, not %s', p_key, p_present, p_expect) end,
    detail = jsonb_build_object('version', p_present)::text,
    hint = 'Read it and decide again; expect 0 for a key that must not be set.';
end
$$;
comment on function coordinator.signal_refuse(text, bigint, bigint) is
  'Raise that a signal has another version than the one expected; p_present is null if it is not set. Internal.';

create or replace function coordinator.signal_set(
  p_project text, p_key text, p_value jsonb, p_ttl interval default null, p_critical boolean default false,
  p_expect bigint default null, p_agent uuid default null, p_ephemeral boolean default false, p_actor text default null)
returns setof coordinator.signals_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project    bigint := coordinator.project_id(p_project);
  v_now        timestamptz := coordinator.now_utc();
  v_expires_at timestamptz;
  v_owner      uuid := case when p_ephemeral then p_agent end;
  v_agent_name text;
  v_actor      text;
  v_rule       record;
  v_prefix     text;
  v_present    bigint;
  v_signal     coordinator.signals;
begin
  p_critical := coalesce(p_critical, false);
  perform coordinator.check_key('the key', p_key);
  perform coordinator.check_json('the value', p_value);
  if p_critical and p_ttl is not null then
    raise exception using errcode = 'ZC105', message = 'a critical signal has no TTL',
      hint = 'Give either a TTL or critical.';
  elsif not p_critical then
    perform coordinator.check_ttl(coalesce(p_ttl, interval '24 hours'));
    v_expires_at := v_now + coalesce(p_ttl, interval '24 hours');
  end if;
  if p_agent is not null then
    -- Other callers may hold the same lock. The end of an agent waits for it, so it leaves no ephemeral signal behind.
    select name into v_agent_name from coordinator.agents
    where id = p_agent and project_id = v_project for key share;
    if not found then
      perform coordinator.agent_missing(p_project, p_agent);
    end if;
  elsif p_ephemeral then
    raise exception using errcode = 'ZC105', message = 'an ephemeral signal needs an agent',
      hint = 'Name the agent.';
  end if;
  v_actor := coordinator.actor_name(p_actor, v_agent_name);

  select r.when_set, r.clears into v_rule from coordinator.signal_rules r
  where r.when_set = substring(p_key from '[^/]*$') and (r.project_id is null or r.project_id = v_project)
  order by r.project_id nulls last limit 1;
  if found then
    -- Transactions whose rules clear each other's keys wait for each other.
    v_prefix := coalesce(substring(p_key from '^.*/'), '');
    perform coordinator.advisory_enter(hashtextextended('coordinator.rule:' || v_project || ':' || v_prefix, 0));
    perform coordinator.signal_clear(v_project, p_project, p_key, v_rule.clears, v_actor, v_now);
  end if;

  if p_expect is null then
    insert into coordinator.signals as s (project_id, key, value, version, critical, agent_id, actor, created_at, updated_at, expires_at)
    values (v_project, p_key, p_value, coordinator.epoch_number('coordinator.signal_versions'), p_critical, v_owner, v_actor, v_now, v_now, v_expires_at)
    on conflict on constraint signals_pkey do update
    set value = excluded.value, version = nextval('coordinator.signal_versions'), critical = excluded.critical,
        agent_id = excluded.agent_id, actor = excluded.actor, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        created_at = case when s.expires_at <= v_now then excluded.created_at else s.created_at end
    returning * into v_signal;
  elsif p_expect = 0 then
    insert into coordinator.signals as s (project_id, key, value, version, critical, agent_id, actor, created_at, updated_at, expires_at)
    values (v_project, p_key, p_value, coordinator.epoch_number('coordinator.signal_versions'), p_critical, v_owner, v_actor, v_now, v_now, v_expires_at)
    on conflict on constraint signals_pkey do update
    set value = excluded.value, version = nextval('coordinator.signal_versions'), critical = excluded.critical,
        agent_id = excluded.agent_id, actor = excluded.actor, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        created_at = excluded.created_at
    where s.expires_at <= v_now
    returning * into v_signal;
  else
    update coordinator.signals
    set value = p_value, version = coordinator.epoch_number('coordinator.signal_versions'), critical = p_critical,
        agent_id = v_owner, actor = v_actor, updated_at = v_now, expires_at = v_expires_at
    where project_id = v_project and key = p_key and version = p_expect and (expires_at is null or expires_at > v_now)
    returning * into v_signal;
  end if;
  if v_signal.key is null then
    select s.version into v_present from coordinator.signals s
    where s.project_id = v_project and s.key = p_key and (s.expires_at is null or s.expires_at > v_now);
    perform coordinator.signal_refuse(p_key, p_expect, v_present);
  end if;

  insert into coordinator.events (type, project, key, actor, at, data)
  values ('signal.set', p_project, p_key, v_actor, v_now,
          jsonb_build_object('value', p_value, 'version', v_signal.version, 'critical', p_critical, 'agent_id', v_owner,
                             'expires_at', v_expires_at));
  return query select p_project, v_signal.key, v_signal.value, v_signal.version, v_signal.critical, v_signal.agent_id,
    v_signal.actor, v_signal.created_at, v_signal.updated_at, v_signal.expires_at;
end
$$;
comment on function coordinator.signal_set(text, text, jsonb, interval, boolean, bigint, uuid, boolean, text) is
  'Set a signal for p_ttl (default 24 hours), or without expiry if p_critical. p_expect: only if it has this version (0: only if it is not set), else ZC301 with the current version. p_ephemeral: the signal ends with p_agent. Rules clear other signals in the same transaction.';

create or replace function coordinator.signal_clear(
  p_project_id bigint, p_project text, p_key text, p_clears text[], p_actor text, p_now timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_prefix text := coalesce(substring(p_key from '^.*/'), '');
  v_signal record;
begin
  -- One statement that includes p_key: it locks existing rows in the order of their keys, like agent_end. Signals that are set from now
  -- on come after p_key.
  for v_signal in
    with held as (
      select project_id, key from coordinator.signals
      where project_id = p_project_id and key = any (array(select v_prefix || c from unnest(p_clears) c) || p_key)
      order by key for update)
    delete from coordinator.signals s using held h
    where s.project_id = h.project_id and s.key = h.key and s.key <> p_key
    returning s.key, s.version
  loop
    perform coordinator.event_append('signal.cleared', p_project, v_signal.key, p_actor, p_now,
      jsonb_build_object('version', v_signal.version, 'rule', p_key));
  end loop;
end
$$;
comment on function coordinator.signal_clear(bigint, text, text, text[], text, timestamptz) is
  'Lock p_key, and delete the signals with the same prefix whose last segment is in p_clears. Internal: applies a rule.';

create or replace function coordinator.signal_get(p_project text, p_key text)
returns setof coordinator.signals_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_key('the key', p_key);
  return query
    select p_project, s.key, s.value, s.version, s.critical, s.agent_id, s.actor, s.created_at, s.updated_at, s.expires_at
    from coordinator.signals s
    where s.project_id = v_project and s.key = p_key and (s.expires_at is null or s.expires_at > coordinator.now_utc());
  if not found then
    raise exception using errcode = 'ZC203', message = format('signal "%s" is not set in project "%s"', p_key, p_project),
      hint = 'It was never set, was deleted or has expired; see "coordinator signal list".';
  end if;
end
$$;
comment on function coordinator.signal_get(text, text) is
  'Read a signal. ZC203: the signal is not set, or it has expired.';

create or replace function coordinator.signal_list(
  p_project text, p_prefix text default '', p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.signals_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  if coalesce(p_prefix, '') <> '' then
    perform coordinator.check_text('the prefix', p_prefix);
  end if;
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select p_project, s.key, s.value, s.version, s.critical, s.agent_id, s.actor, s.created_at, s.updated_at, s.expires_at
    from coordinator.signals s
    where s.project_id = v_project
      -- In byte order: from the prefix up to the prefix with the greatest character appended.
      and s.key >= coalesce(p_prefix, '') and s.key < coalesce(p_prefix, '') || U&'\+10FFFF'
      and s.key > coalesce(p_after[1], '')
      and (s.expires_at is null or s.expires_at > coordinator.now_utc())
    order by s.key limit p_limit;
end
$$;
comment on function coordinator.signal_list(text, text, text[], integer) is
  'List the signals of a project whose keys begin with p_prefix, in byte order of their keys. p_after: array[key] of the last row read.';

create or replace function coordinator.signal_delete(
  p_project text, p_key text, p_expect bigint default null, p_actor text default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_version bigint;
  v_present bigint;
begin
  perform coordinator.check_key('the key', p_key);
  delete from coordinator.signals
  where project_id = v_project and key = p_key and (expires_at is null or expires_at > v_now)
    and (p_expect is null or version = p_expect)
  returning version into v_version;
  if not found then
    select version into v_present from coordinator.signals
    where project_id = v_project and key = p_key and (expires_at is null or expires_at > v_now);
    if v_present is not null and p_expect is not null then -- otherwise it has just been set
      perform coordinator.signal_refuse(p_key, p_expect, v_present);
    end if;
    raise exception using errcode = 'ZC203', message = format('signal "%s" is not set in project "%s"', p_key, p_project),
      hint = 'It was never set, was deleted or has expired; see "coordinator signal list".';
  end if;
  perform coordinator.event_append('signal.deleted', p_project, p_key, coordinator.actor_name(p_actor), v_now,
    jsonb_build_object('version', v_version));
  return v_version;
end
$$;
comment on function coordinator.signal_delete(text, text, bigint, text) is
  'Delete a signal, and return its version; with p_expect, only at that version. ZC203: the signal is not set. ZC301: it has another version.';

create or replace function coordinator.signal_hold(p_project_id bigint, p_keys text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  foreach v_key in array p_keys loop
    loop
      perform from coordinator.signals where project_id = p_project_id and key = v_key for update;
      exit when found;
      -- There is no row to lock. So insert and delete one: other transactions that want to insert theirs then wait.
      insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at)
      values (p_project_id, v_key, 'null', 0, true, 'coordinator', coordinator.now_utc(), coordinator.now_utc())
      on conflict on constraint signals_pkey do nothing;
      if found then
        delete from coordinator.signals where project_id = p_project_id and key = v_key;
        exit;
      end if;
    end loop;
  end loop;
end
$$;
comment on function coordinator.signal_hold(bigint, text[]) is
  'Keep keys as they are, set or not, until the end of the transaction; give them in byte order. No event. Internal.';

create or replace function coordinator.signal_enter(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys    text[];
  v_cleared text[] := '{}';
  v_rule    record;
begin
  -- The function that receives a malformed key rejects it.
  v_keys := array(select distinct p ->> 'key' from jsonb_array_elements(p_parts) p where length(p ->> 'key') between 1 and 512);
  -- Also lock the prefix if a rule clears one of the keys: a transaction that sets the key of that rule may lock it after its other rows.
  for v_rule in
    select hashtextextended('coordinator.rule:' || p_project_id || ':' || k.prefix, 0) as lock,
           coalesce(array_agg(k.prefix || c) filter (where c is not null), '{}') as cleared
    from (select substring(key from '[^/]*$') as name, coalesce(substring(key from '^.*/'), '') as prefix from unnest(v_keys) key) k
    left join lateral (
      select r.clears from coordinator.signal_rules r
      where r.when_set = k.name and (r.project_id is null or r.project_id = p_project_id)
      order by r.project_id nulls last limit 1) r on true
    left join lateral unnest(r.clears) c on true
    where r.clears is not null
       or exists (select from coordinator.signal_rules o
                  where k.name = any (o.clears) and (o.project_id is null or o.project_id = p_project_id))
    group by 1 order by 1
  loop
    perform coordinator.advisory_enter(v_rule.lock);
    v_cleared := v_cleared || v_rule.cleared;
  end loop;
  -- Also hold cleared keys that are not set: another transaction may set one meanwhile, and then wait for one of these keys.
  perform coordinator.signal_hold(p_project_id, array(
    select distinct key collate "C" from unnest(v_keys || v_cleared) key where length(key) <= 512 order by 1));
end
$$;
comment on function coordinator.signal_enter(bigint, jsonb) is
  'Take the locks of all parts of a transaction that concern signals: those of their rules, then their keys in byte order. Internal.';

create or replace function coordinator.assert_signal(p_project text, p_key text, p_version bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_present bigint;
begin
  perform coordinator.check_key('the key', p_key);
  if p_version is null then
    raise exception using errcode = 'ZC101', message = format('no version is given for "%s"', p_key),
      hint = 'Give the version that it must have, or 0 if it must not be set.';
  end if;
  perform coordinator.signal_hold(v_project, array[p_key]);
  select version into v_present from coordinator.signals
  where project_id = v_project and key = p_key and (expires_at is null or expires_at > coordinator.now_utc());
  if coalesce(v_present, 0) <> p_version then
    perform coordinator.signal_refuse(p_key, p_version, v_present);
  end if;
end
$$;
comment on function coordinator.assert_signal(text, text, bigint) is
  'Guard a transaction: require that the signal has this version (0: it is not set), and prevent changes to it until the transaction ends. ZC301: it has another version; the detail has the current one.';

create or replace function coordinator.signal_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_count integer;
begin
  perform coordinator.check_page(p_limit);
  with due as (
    select project_id, key from coordinator.signals where expires_at <= v_now
    order by expires_at limit p_limit for update skip locked
  ), gone as (
    delete from coordinator.signals s using due d
    where s.project_id = d.project_id and s.key = d.key
    returning s.project_id, s.key, s.version, s.expires_at
  )
  select count(*), count(coordinator.event_append('signal.expired', p.name, g.key, 'coordinator', v_now,
    jsonb_build_object('version', g.version, 'expires_at', g.expires_at)))
  into v_count
  from gone g left join coordinator.projects p on p.id = g.project_id
  where p.id is not null;
  return v_count;
end
$$;
comment on function coordinator.signal_expire(integer) is
  'Delete up to p_limit expired signals; returns how many. Repeat until 0.';

create or replace function coordinator.signal_prune() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- One index lookup for each project that has signals, however many signals it has.
  with recursive used as (
    (select project_id from coordinator.signals order by project_id limit 1)
    union all
    select (select s.project_id from coordinator.signals s where s.project_id > u.project_id order by s.project_id limit 1)
    from used u where u.project_id is not null
  )
  delete from coordinator.signals
  where project_id in (select u.project_id from used u left join coordinator.projects p on p.id = u.project_id
                       where u.project_id is not null and p.id is null);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.signal_prune() is
  'Delete signals that were set while their project was being deleted; returns how many. No events: the project is gone.';
