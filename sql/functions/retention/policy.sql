-- Retention: how long logs, documents, sessions and artifacts are kept.
--
-- A policy has two bounds. Without a bound, everything is kept:
--
--   subject    max_age                                              max_count
--   log        maximum age of an entry                              newest entries that each log keeps
--   document   time for which a deleted document is kept            newest versions that each document keeps
--   session    time for which an inactive session is kept           -
--   artifact   time for which an artifact is kept after its         -
--              content was stored; with a session, as long as that
--
-- The most specific policy applies: that for the kind in the project, then for the kind in all projects, then for * in the project, then
-- for * in all projects. The last one always exists.

insert into coordinator.event_types (type, key, data, meaning) values
  ('retention.set',   'subject/kind', '{everywhere,max_age,max_count}', 'A retention policy was set; everywhere: for all projects.'),
  ('retention.run',   'name of the project', '{}',                      'Retention was started: everything beyond its bounds is removed now.'),
  ('retention.reset', 'subject/kind', '{everywhere}',                   'A retention policy was removed or, for all projects, reset to its default.');

insert into coordinator.rights (function, role) values
  ('retention_plan',  'reader'),
  ('retention_show',  'reader'),
  ('retention_set',   'manager'),
  ('retention_reset', 'manager'),
  ('retention_run',   'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('retention_age',      3155760000, 'seconds',  'Longest age in a retention policy: 100 years.'),
  ('retention_count',    1000000000, 'entries',  'Largest number of entries in a retention policy.'),
  ('retention_versions', 1000,       'versions', 'Largest number of document versions in a retention policy.');

create or replace function coordinator.retention_defaults()
returns table (subject text, kind text, max_age interval, max_count bigint)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values ('log', '*', null::interval, null::bigint),
         ('log', 'audit', '365 days', null),
         ('log', 'message', null, null), -- messages are removed with their session
         ('log', 'observation', '7 days', 10000),
         ('log', 'step', '30 days', null),
         ('document', '*', '7 days', 10),
         ('session', '*', '90 days', null),
         ('artifact', '*', null, null)
$$;
comment on function coordinator.retention_defaults() is
  'Return the default policies for all projects. Internal.';

insert into coordinator.retention (subject, kind, max_age, max_count, actor, updated_at)
select d.subject, d.kind, d.max_age, d.max_count, 'coordinator', coordinator.now_utc() from coordinator.retention_defaults() d
on conflict do nothing;

-- In PL/pgSQL, which caches the plan, because appends and puts call these functions.
create or replace function coordinator.retention_of(p_project_id bigint, p_subject text, p_kind text) returns coordinator.retention
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policy coordinator.retention;
begin
  select * into v_policy from coordinator.retention r
  where r.subject = p_subject and r.kind in (p_kind, '*') and (r.project_id = p_project_id or r.project_id is null)
  order by r.kind = '*', r.project_id is null limit 1;
  return v_policy;
end
$$;
comment on function coordinator.retention_of(bigint, text, text) is
  'Return the policy for a kind in a project. Internal.';

create or replace function coordinator.retention_age(p_project_id bigint, p_subject text, p_kind text) returns interval
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select r.max_age from coordinator.retention r
          where r.subject = p_subject and r.kind in (p_kind, '*') and (r.project_id = p_project_id or r.project_id is null)
          order by r.kind = '*', r.project_id is null limit 1);
end
$$;
comment on function coordinator.retention_age(bigint, text, text) is
  'Return the maximum age of a kind in a project; null: none. Internal.';

create or replace function coordinator.retention_count(p_project_id bigint, p_subject text, p_kind text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select r.max_count from coordinator.retention r
          where r.subject = p_subject and r.kind in (p_kind, '*') and (r.project_id = p_project_id or r.project_id is null)
          order by r.kind = '*', r.project_id is null limit 1);
end
$$;
comment on function coordinator.retention_count(bigint, text, text) is
  'Return how many entries or versions of a kind a log or document in a project keeps; null: all. Internal.';

create or replace function coordinator.retention_check(
  p_subject text, p_kind text, p_max_age interval default null, p_max_count bigint default null) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most bigint := case p_subject when 'document' then 1000 else 1000000000 end;
begin
  if p_subject is null or p_subject not in ('log', 'document', 'session', 'artifact') then
    raise exception using errcode = 'ZC105', message = format('invalid subject "%s"', left(p_subject, 200)),
      hint = 'Use log, document, session or artifact.';
  elsif p_subject in ('session', 'artifact') and p_kind is distinct from '*' then
    raise exception using errcode = 'ZC105', message = format('%ss have no kinds', p_subject), hint = 'Omit the kind.';
  elsif coalesce(p_kind, '') !~ '^(\*|[a-z][a-z0-9_-]{0,35})$' then
    raise exception using errcode = 'ZC103', message = format('invalid kind "%s"', left(p_kind, 200)),
      hint = 'Use at most 36 lower-case letters, digits, - and _, starting with a letter; or * for all other kinds.';
  end if;
  if p_max_age is not null and extract(epoch from p_max_age) not between 1 and 3155760000 then
    raise exception using errcode = 'ZC104', message = format('a maximum age of %s is out of range', coordinator.duration_text(p_max_age)),
      hint = 'Give 1s to 36525d, or omit it to keep everything.';
  elsif p_max_count is not null and p_subject in ('session', 'artifact') then
    raise exception using errcode = 'ZC105', message = format('%ss are kept by age, not by number', p_subject), hint = 'Omit the maximum count.';
  elsif p_max_count not between 1 and v_most then
    raise exception using errcode = 'ZC104', message = format('a maximum count of %s is out of range', p_max_count),
      hint = format('Give 1 to %s, or omit it to keep everything.', v_most);
  end if;
end
$$;
comment on function coordinator.retention_check(text, text, interval, bigint) is
  'Reject a subject (ZC105), kind (ZC103) or bound (ZC104) that no policy can have. Internal.';

create or replace function coordinator.retention_set(
  p_project text, p_subject text, p_kind text default '*', p_max_age interval default null, p_max_count bigint default null,
  p_everywhere boolean default false, p_actor text default null)
returns setof coordinator.retention_policy
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
begin
  p_everywhere := coalesce(p_everywhere, false);
  if p_everywhere then
    perform coordinator.everywhere_check();
  end if;
  perform coordinator.retention_check(p_subject, p_kind, p_max_age, p_max_count);
  perform coordinator.project_hold(v_project);
  insert into coordinator.retention (project_id, subject, kind, max_age, max_count, actor, updated_at)
  values (case when not p_everywhere then v_project end, p_subject, p_kind, p_max_age, p_max_count, v_actor, v_now)
  on conflict (subject, kind, coalesce(project_id, 0)) do update
  set max_age = excluded.max_age, max_count = excluded.max_count, actor = excluded.actor, updated_at = excluded.updated_at;
  insert into coordinator.retention_sweeps (project_id, subject, kind)
  values (case when not p_everywhere then v_project end, p_subject, p_kind);
  perform coordinator.event_append('retention.set', p_project, p_subject || '/' || p_kind, v_actor, v_now,
    jsonb_build_object('max_age', case when p_max_age is not null then coordinator.duration_text(p_max_age) end, 'max_count', p_max_count, 'everywhere', p_everywhere));
  return query select case when not p_everywhere then p_project end, p_subject, p_kind, p_max_age, p_max_count, v_actor, v_now;
end
$$;
comment on function coordinator.retention_set(text, text, text, interval, bigint, boolean, text) is
  'Set how long logs, documents, sessions or artifacts of a kind are kept, in this project or p_everywhere. An omitted bound does not apply: without both bounds, everything is kept. * stands for any kind without a policy of its own.';

create or replace function coordinator.retention_reset(
  p_project text, p_subject text, p_kind text default '*', p_everywhere boolean default false, p_actor text default null)
returns setof coordinator.retention_policy
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
begin
  p_everywhere := coalesce(p_everywhere, false);
  if p_everywhere then
    perform coordinator.everywhere_check();
  end if;
  perform coordinator.retention_check(p_subject, p_kind);
  perform coordinator.project_hold(v_project);
  delete from coordinator.retention r
  where r.subject = p_subject and r.kind = p_kind and r.project_id is not distinct from case when not p_everywhere then v_project end;
  insert into coordinator.retention (subject, kind, max_age, max_count, actor, updated_at)
  select d.subject, d.kind, d.max_age, d.max_count, 'coordinator', v_now
  from coordinator.retention_defaults() d where p_everywhere and d.subject = p_subject and d.kind = p_kind;
  insert into coordinator.retention_sweeps (project_id, subject, kind)
  values (case when not p_everywhere then v_project end, p_subject, p_kind);
  perform coordinator.event_append('retention.reset', p_project, p_subject || '/' || p_kind, coordinator.actor_name(p_actor), v_now,
    jsonb_build_object('everywhere', p_everywhere));
  return query
    select p.name, r.subject, r.kind, r.max_age, r.max_count, r.actor, r.updated_at
    from coordinator.retention_of(case when not p_everywhere then v_project end, p_subject, p_kind) r
    left join coordinator.projects p on p.id = r.project_id;
end
$$;
comment on function coordinator.retention_reset(text, text, text, boolean, text) is
  'Remove the policy of this project for a kind, so that the policy for all projects applies; with p_everywhere, reset that policy to its default. Return the policy that applies now. Resetting it again changes nothing.';

create or replace function coordinator.retention_show(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.retention_policy
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text,text}');
  return query
    select distinct on (r.subject, r.kind)
      case when r.project_id is not null then p_project end, r.subject, r.kind, r.max_age, r.max_count, r.actor, r.updated_at
    from coordinator.retention r
    where (r.project_id is null or r.project_id = v_project) and (r.subject, r.kind) > (coalesce(p_after[1], ''), coalesce(p_after[2], ''))
    order by r.subject, r.kind, r.project_id is null limit p_limit;
end
$$;
comment on function coordinator.retention_show(text, text[], integer) is
  'List the policies that apply in a project, by subject and kind; project null: those for all projects. p_after: array[subject, kind] of the last row read.';

create or replace function coordinator.retention_label(p_subject text, p_kind text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select r.kind from coordinator.retention r where r.subject = p_subject and r.kind = p_kind and r.project_id is null), '*')
$$;
comment on function coordinator.retention_label(text, text) is
  'Return the kind as metrics name it: * for kinds that callers chose, because their number is unlimited. Internal.';

create or replace function coordinator.retention_configure(p_max_age interval default null, p_max_count bigint default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := coordinator.now_utc();
begin
  update coordinator.retention r
  set max_age = coalesce(p_max_age, r.max_age), max_count = coalesce(p_max_count, r.max_count), actor = 'coordinator', updated_at = v_now
  where r.subject = 'log' and r.kind = 'observation' and r.project_id is null
    and (r.max_age, r.max_count) is distinct from (coalesce(p_max_age, r.max_age), coalesce(p_max_count, r.max_count));
  if not found then
    return 0;
  end if;
  insert into coordinator.retention_sweeps (subject, kind) values ('log', 'observation');
  return 1;
end
$$;
comment on function coordinator.retention_configure(interval, bigint) is
  'Set the bounds of observations in all projects from the settings of a daemon; return 1 if that changed anything. No event: it concerns no project.';
