-- Briefings: what an agent should know before it continues. Who is working, what is locked, which directives it has, which signals
-- changed.
--
-- Guarantees
--   A directive, or a version of a signal, is returned as news only once per agent name, whichever process asks and however many ask at
--   the same time: calls of one agent wait for each other at its row in briefings, and what a call returns is recorded in the same
--   transaction. A call that fails records nothing. If only its response is lost, the directive counts as seen, but stays open until
--   the agent answers it.
--   The size of the result is limited, whatever the project contains; texts are cut.
--
-- How it works. The receipts of directives show what is news: a directive without a receipt is news, and then becomes seen. For
-- signals, the version of each key that the agent was told is stored, because versions do not commit in order. Signals that the agent
-- set itself are not news.

insert into coordinator.rights (function, role) values
  ('briefing_list',  'reader'),
  ('briefing_read',  'agent'),
  ('briefing_subscribe', 'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('briefing_patterns', 20, 'items', 'Signal patterns that an agent watches; of the matching keys, only the first 200 count.');

create or replace view coordinator.briefings_read with (security_barrier) as
  select p.name as project, b.agent_name as agent, b.patterns, b.told, b.read_at
  from coordinator.briefings b join coordinator.projects p on p.id = b.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.briefings_read          is 'Signals that each agent watches, and what it has been told.';
comment on column coordinator.briefings_read.project  is 'Name of the project.';
comment on column coordinator.briefings_read.agent    is 'Name of the agent.';
comment on column coordinator.briefings_read.patterns is 'Key patterns of the signals that it watches.';
comment on column coordinator.briefings_read.told     is 'Last version of each watched signal that the agent was told, by key.';
comment on column coordinator.briefings_read.read_at  is 'When it last read a briefing with news.';

create or replace function coordinator.briefing_signals(p_project_id bigint, p_patterns text[])
returns table (key text, version bigint, value text, actor text, updated_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (s.key) s.key, s.version, left(s.value::text, 500), s.actor, s.updated_at
  from unnest(p_patterns) u (pattern), lateral (
    select s.* from coordinator.signals s
    -- In byte order: from the text before the first * up to this text with the greatest character appended.
    where s.project_id = p_project_id and s.key >= split_part(u.pattern, '*', 1) and s.key <= split_part(u.pattern, '*', 1) || U&'\+10FFFF'
      and s.key like replace(replace(replace(replace(u.pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
      and (s.expires_at is null or s.expires_at > coordinator.now_utc())
    order by s.key limit 200) s
  order by s.key limit 200
$$;
comment on function coordinator.briefing_signals(bigint, text[]) is
  'Return the first 200 signals whose keys match one of the patterns. Internal.';

create or replace function coordinator.briefing_directives(p_project text, p_agent text, p_again boolean)
returns table (id bigint, actor text, body text, sent_at timestamptz, expires_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select d.id, d.actor, left(d.body, 1000), d.sent_at, d.expires_at from coordinator.directive_inbox(p_project, p_agent, null, 1000) d
  where p_again or d.status = 'unseen'
$$;
comment on function coordinator.briefing_directives(text, text, boolean) is
  'Return the open directives that an agent has not seen or, with p_again, also those that it has seen. Internal.';

create or replace function coordinator.briefing_enter(p_project_id bigint, p_agent text) returns coordinator.briefings
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_self coordinator.briefings;
begin
  loop
    select * into v_self from coordinator.briefings b where b.project_id = p_project_id and b.agent_name = p_agent for update;
    exit when found;
    insert into coordinator.briefings (project_id, agent_name, read_at) values (p_project_id, p_agent, coordinator.now_utc())
    on conflict do nothing;
  end loop;
  return v_self;
end
$$;
comment on function coordinator.briefing_enter(bigint, text) is
  'Lock the record of what an agent was told, until the end of the transaction. Internal. No event.';

create or replace function coordinator.briefing_name(p_project text, p_agent text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_name('the name of the agent', p_agent);
  return coordinator.agent_name(p_project, p_agent);
end
$$;
comment on function coordinator.briefing_name(text, text) is
  'Return the name of the agent that reads briefings. ZC202: it is unknown. Internal.';

create or replace function coordinator.briefing_subscribe(p_project text, p_agent text, p_patterns text[])
returns setof coordinator.briefings_read
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_name    text := coordinator.briefing_name(p_project, p_agent);
  v_pattern text;
begin
  if cardinality(p_patterns) > 20 then
    raise exception using errcode = 'ZC102', message = format('%s patterns of signals; at most 20 are allowed', cardinality(p_patterns)),
      hint = 'Use * in a pattern: build/* matches all signals below build/.';
  elsif array_ndims(p_patterns) > 1 or array_lower(p_patterns, 1) <> 1 then
    raise exception using errcode = 'ZC103', message = 'the patterns are not a plain list',
      hint = 'Give a one-dimensional array whose subscripts begin at 1.';
  end if;
  foreach v_pattern in array coalesce(p_patterns, '{}') loop
    perform coordinator.check_key('a pattern', v_pattern);
  end loop;
  perform coordinator.briefing_enter(v_project, v_name);
  update coordinator.briefings b
  set patterns = coalesce(p_patterns, '{}'),
      -- Existing signals count as known, except for those of which the agent was told an earlier version.
      told = coalesce((select jsonb_object_agg(s.key, coalesce(b.told -> s.key, to_jsonb(s.version)))
                       from coordinator.briefing_signals(v_project, p_patterns) s), '{}')
  where b.project_id = v_project and b.agent_name = v_name;
  return query select * from coordinator.briefings_read b where b.project = p_project and b.agent = v_name;
end
$$;
comment on function coordinator.briefing_subscribe(text, text, text[]) is
  'Choose the signals whose changes an agent is told about, by key patterns: build/*, */COMPLETED. The patterns replace the earlier ones; an empty list ends the subscription. ZC202: no such agent. No event.';

create or replace function coordinator.briefing_read(p_project text, p_agent text, p_news boolean default false, p_again boolean default true)
returns setof coordinator.briefing_item
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_name     text := coordinator.briefing_name(p_project, p_agent);
  v_now      timestamptz := coordinator.now_utc();
  v_self     coordinator.briefings;
  v_found    record;
  v_item     coordinator.briefing_item;
  v_count    bigint;
  v_shown    integer := 0;
begin
  p_again := p_again and not p_news;
  select * into v_self from coordinator.briefings b where b.project_id = v_project and b.agent_name = v_name;
  -- Usually, nothing is new, and nothing is written.
  if not p_news or exists (select from coordinator.briefing_directives(p_project, v_name, false))
     or exists (select from coordinator.briefing_signals(v_project, v_self.patterns) s
                full join jsonb_each(v_self.told) t on t.key = s.key
                where s.version is distinct from (t.value)::bigint) then
    v_self := coordinator.briefing_enter(v_project, v_name); -- before directives, see the lock order in sql/README.md

    select count(*) into v_count from coordinator.briefing_directives(p_project, v_name, p_again);
    for v_found in select * from coordinator.briefing_directives(p_project, v_name, p_again) limit 5 loop
      begin
        perform coordinator.directive_acknowledge(p_project, v_found.id, v_name, 'seen');
      exception when sqlstate 'ZC105' or sqlstate 'ZC204' or sqlstate 'ZC304' then -- the directive has just ended
        v_count := v_count - 1;
        continue;
      end;
      v_shown := v_shown + 1;
      v_item := row('directive', v_found.id::text, v_found.actor, v_found.body, v_found.sent_at, v_found.expires_at,
                    case when v_shown = least(v_count, 5) then v_count - v_shown else 0 end);
      return next v_item;
    end loop;

    v_shown := 0;
    for v_found in
      select coalesce(s.key, t.key) as key, s.version, s.value, s.actor, s.updated_at,
             count(*) filter (where s.actor is distinct from v_name) over () as total, s.actor is not distinct from v_name as own
      from coordinator.briefing_signals(v_project, v_self.patterns) s full join jsonb_each(v_self.told) t on t.key = s.key
      where s.version is distinct from (t.value)::bigint or p_again and s.key is not null
      order by own desc, 1
    loop
      exit when v_shown = 5;
      v_self.told := case when v_found.version is null then v_self.told - v_found.key
                          else v_self.told || jsonb_build_object(v_found.key, v_found.version) end;
      continue when v_found.own;
      v_shown := v_shown + 1;
      v_item := row('signal', v_found.key, v_found.actor, v_found.value, v_found.updated_at, null,
                    case when v_shown = least(v_found.total, 5) then v_found.total - v_shown else 0 end);
      return next v_item;
    end loop;
    update coordinator.briefings b set told = v_self.told, read_at = v_now where b.project_id = v_project and b.agent_name = v_name;
  end if;
  if p_news then
    return;
  end if;

  return query
    select 'agent', a.metadata ->> 'worktree', a.name, left(a.metadata ->> 'task', 1000), a.registered_at, a.expires_at,
           case when a.place = least(a.total, 10) then a.total - a.place else 0 end
    from (select a.*, count(*) over () as total, row_number() over (order by a.heartbeat_at desc, a.id) as place
          from (select * from coordinator.agents a
                where a.project_id = v_project and a.name <> v_name and a.expires_at > v_now limit 1000) a) a
    where a.place <= 10 order by a.place;
  return query
    select 'lock', l.resource, l.agent_name, left(a.metadata ->> 'task', 1000), l.acquired_at, l.expires_at,
           case when l.place = least(l.total, 20) then l.total - l.place else 0 end
    from (select l.*, count(*) over () as total, row_number() over (order by l.acquired_at desc, l.resource, l.slot) as place
          from (select * from coordinator.locks l
                where l.project_id = v_project and l.agent_name <> v_name and l.expires_at > v_now limit 1000) l) l
    left join coordinator.agents a on a.id = l.agent_id
    where l.place <= 20 order by l.place;
end
$$;
comment on function coordinator.briefing_read(text, text, boolean, boolean) is
  'Brief an agent, given by name or id: at most 5 directives for it, 5 changed signals that it watches, 10 other agents at work and 20 locks that they hold. Returned directives become seen. p_news: only new directives and signals. p_again: include directives that it has seen and not answered, and all signals that it watches, for an agent that has lost its memory. ZC202: no such agent.';

create or replace function coordinator.briefing_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.briefings_read
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select p_project, b.agent_name, b.patterns, b.told, b.read_at from coordinator.briefings b
    where b.project_id = v_project and b.agent_name > coalesce(p_after[1], '')
    order by b.agent_name limit p_limit;
end
$$;
comment on function coordinator.briefing_list(text, text[], integer) is
  'List what the agents of a project watch and what they were told, by name. p_after: array[agent] of the last row read.';

create or replace function coordinator.briefing_prune(p_retention interval default '30 days', p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.prune_rows('coordinator.briefings', 'read_at', p_retention, p_limit);
end
$$;
comment on function coordinator.briefing_prune(interval, integer) is
  'Delete the records of up to p_limit agents that have read no news for p_retention; returns how many. Repeat until 0. No events.';
