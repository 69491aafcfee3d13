-- Sweeps, which apply a changed policy to existing rows; and the plan of what retention would remove now.

create or replace function coordinator.retention_sweep(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_sweep coordinator.retention_sweeps;
  v_all   bigint[];
  v_ids   bigint[]; -- those of them that no other transaction has locked
begin
  perform coordinator.check_page(p_limit);
  for v_sweep in select * from coordinator.retention_sweeps s order by s.id for update skip locked loop
    perform from coordinator.projects p where p.id = v_sweep.project_id for key share skip locked;
    continue when not found and v_sweep.project_id is not null; -- it is being deleted
    execute format('select array(select id from coordinator.%I where id > $1 and id <= coalesce($2, id) and project_id = coalesce($3, project_id) order by id limit $4)',
                   v_sweep.subject || 's') into v_all using v_sweep.swept_to, v_sweep.swept_until, v_sweep.project_id, p_limit;
    execute format('select array(select id from coordinator.%I where id = any ($1) order by id for no key update skip locked)', v_sweep.subject || 's')
      into v_ids using v_all;
    continue when v_ids = '{}' and v_all <> '{}' and v_sweep.swept_until is not null;
    if v_all = '{}' then
      delete from coordinator.retention_sweeps s where s.id = v_sweep.id;
      return 1;
    end if;
    case v_sweep.subject
      when 'log' then
        update coordinator.logs l set trim_at = v_now
        where l.id = any (v_ids) and (l.trim_at is null or l.trim_at > v_now)
          and (v_sweep.kind = '*' or l.kind = v_sweep.kind);
      when 'document' then
        update coordinator.documents d set expires_at = d.updated_at + coordinator.retention_age(d.project_id, 'document', d.kind)
        where d.id = any (v_ids) and d.deleted
          and (v_sweep.kind = '*' or d.kind = v_sweep.kind);
        delete from coordinator.document_versions v using coordinator.documents d
        where d.id = any (v_ids) and v.document_id = d.id and v.version <= d.version - coordinator.document_versions_kept(d.project_id, d.kind)
          and (v_sweep.kind = '*' or d.kind = v_sweep.kind);
      when 'artifact' then
        update coordinator.artifacts a set trim_at = coordinator.artifact_trim_at(a.project_id, a.session_id, a.kept, a.updated_at)
        where a.id = any (v_ids)
          and a.trim_at is distinct from coordinator.artifact_trim_at(a.project_id, a.session_id, a.kept, a.updated_at);
      else
        update coordinator.sessions s set trim_at = v_now where s.id = any (v_ids);
    end case;
    -- Rows that other transactions have locked get a sweep of their own: one for each sequence of them.
    insert into coordinator.retention_sweeps (project_id, subject, kind, swept_to, swept_until)
    select v_sweep.project_id, v_sweep.subject, v_sweep.kind, min(h.id) - 1, max(h.id)
    from (select u.id, u.place - row_number() over (order by u.place) as sequence
          from unnest(v_all) with ordinality u (id, place) where u.id <> all (v_ids)) h group by h.sequence;
    update coordinator.retention_sweeps s set swept_to = v_all[cardinality(v_all)] where s.id = v_sweep.id;
    return cardinality(v_all);
  end loop;
  return 0;
end
$$;
comment on function coordinator.retention_sweep(integer) is
  'Apply a change of retention to up to p_limit logs, documents, sessions or artifacts that it concerns. Return how many were checked. Repeat until 0. No event.';

create or replace function coordinator.retention_plan(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.retention_forecast
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
begin
  perform coordinator.check_page(p_limit, p_after, '{text,text,text}');
  return query
    with policies as materialized (
      select k.kind, r.max_age, r.max_count
      from (select distinct l.kind from coordinator.logs l where l.project_id = v_project) k (kind)
      cross join lateral coordinator.retention_of(v_project, 'log', k.kind) r
    ), logs as (
      select l.kind as of_kind, p.max_age, p.max_count, n.*
      from coordinator.logs l join policies p on p.kind = l.kind
      cross join lateral coordinator.log_forecast(l, v_now - p.max_age, p.max_count) n
      where l.project_id = v_project and not l.kept and not l.deleted and (p.max_age is not null or p.max_count is not null)
    ), found (subject, kind, reason, count, removed, oldest_at) as (
      select 'log', of_kind, 'max_age', count(*), sum(by_age)::bigint, min(oldest_at) from logs where by_age > 0 group by of_kind
      union all
      select 'log', of_kind, 'max_count', count(*), sum(by_count)::bigint, min(oldest_at) from logs where by_count > 0 group by of_kind
      union all
      select 'document', d.kind, 'max_age', count(*), count(*), min(d.updated_at)
      from coordinator.documents d where d.project_id = v_project and d.deleted and not d.kept
        and d.updated_at + coordinator.retention_age(v_project, 'document', d.kind) <= v_now group by d.kind
      union all
      select 'document', d.kind, 'max_count', count(distinct d.id), count(*), min(v.written_at)
      from coordinator.documents d join coordinator.document_versions v on v.document_id = d.id
      where d.project_id = v_project and v.version <= d.version - coordinator.document_versions_kept(v_project, d.kind) group by d.kind
      union all
      select 'document', d.kind, 'ttl', count(*), count(*), min(d.expires_at)
      from coordinator.documents d where d.project_id = v_project and not d.deleted and d.expires_at <= v_now group by d.kind
      union all
      select 'session', '*', 'max_age', count(*), count(*), min(s.updated_at)
      from coordinator.sessions s where s.project_id = v_project
        and s.updated_at + coordinator.retention_age(v_project, 'session', '*') <= v_now and not coordinator.session_kept(s.id)
      union all
      select 'artifact', '*', 'max_age', count(*), count(*), min(a.updated_at)
      from coordinator.artifacts a where a.project_id = v_project and a.session_id is null and not a.kept
        and a.updated_at + coordinator.retention_age(v_project, 'artifact', '*') <= v_now
    )
    select p_project, f.subject, f.kind, f.reason, f.count, f.removed, f.oldest_at
    from found f where f.removed > 0
      and (f.subject, f.kind, f.reason) > (coalesce(p_after[1], ''), coalesce(p_after[2], ''), coalesce(p_after[3], ''))
    order by f.subject, f.kind, f.reason limit p_limit;
end
$$;
comment on function coordinator.retention_plan(text, text[], integer) is
  'Show what retention would remove now from a project, by subject, kind and reason: max_age, max_count, or ttl. The call reads every log, document, session and artifact of the project. p_after: array[subject, kind, reason] of the last row read.';

create or replace function coordinator.retention_run(p_project text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.project_hold(v_project);
  insert into coordinator.retention_sweeps (project_id, subject, kind)
  select v_project, s, '*' from unnest('{log,document,session,artifact}'::text[]) s;
  perform coordinator.event_append('retention.run', p_project, p_project, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.retention_run(text, text) is
  'Run retention now: the leading daemon checks every log, document, session and artifact of a project, and removes in paced batches what retention_plan shows.';
