-- Directives: instructions from managers to one agent name, a role, the worker of a job, or everyone; durable, in order of priority and sending.
-- Recipients are names, not incarnations: an agent that registers later receives what is open for its name, role or everyone.

insert into coordinator.event_types (type, key, data, meaning) values
  ('directive.sent',         'id of the directive', '{to_agent,to_role,to_job,body,data,priority,key,expires_at}', 'A directive was sent. If all targets are null, everyone receives it.'),
  ('directive.acknowledged', 'id of the directive', '{agent,status,reason}',                                'An agent acknowledged a directive; status: seen, done or refused.'),
  ('directive.revoked',      'id of the directive', '{reason}',                                             'A directive was revoked.'),
  ('directive.superseded',   'id of the directive', '{by}',                                                 'A newer directive with the same key replaced this one.'),
  ('directive.expired',      'id of the directive', '{}',                                                   'An open directive expired, or its job ended.');

insert into coordinator.rights (function, role) values
  ('directive_inbox',       'reader'),
  ('directive_list',        'reader'),
  ('directive_pending',     'reader'),
  ('directive_acknowledge', 'agent'),
  ('directive_revoke',      'manager'),
  ('directive_send',        'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('text',     65536, 'characters', 'Body of a directive.'),
  ('priority', 100,   '',           'Priority of a directive: -100 to 100.');

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('directive_acknowledge', 'write', 'directive_enter'),
  ('directive_revoke',      'write', 'directive_enter'),
  ('directive_send',        'write', 'directive_enter');

create or replace view coordinator.directives_sent with (security_barrier) as
  select d.id, p.name as project, d.to_agent, d.to_role, d.to_job, d.body, d.data, d.priority::integer as priority, d.key,
         case when d.status = 'open' and d.expires_at <= coordinator.now_utc() then 'expired' else d.status end as status,
         d.actor, d.sent_at, d.expires_at, d.traceparent
  from coordinator.directives d join coordinator.projects p on p.id = d.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.directives_sent            is 'Directives, open and ended.';
comment on column coordinator.directives_sent.id         is 'Number of the directive, in order of sending.';
comment on column coordinator.directives_sent.project    is 'Name of the project.';
comment on column coordinator.directives_sent.to_agent   is 'Name of the addressed agent.';
comment on column coordinator.directives_sent.to_role    is 'Role of the addressed agents.';
comment on column coordinator.directives_sent.to_job     is 'Job whose worker is addressed. All three null: everyone in the project.';
comment on column coordinator.directives_sent.body       is 'The text.';
comment on column coordinator.directives_sent.data       is 'JSON object for programs; may be empty.';
comment on column coordinator.directives_sent.priority   is 'Higher comes first.';
comment on column coordinator.directives_sent.key        is 'A newer directive with the same key and target supersedes the older; may be null.';
comment on column coordinator.directives_sent.status     is 'open, revoked, superseded or expired; in an inbox unseen or seen.';
comment on column coordinator.directives_sent.actor      is 'Who sent it.';
comment on column coordinator.directives_sent.sent_at    is 'When it was sent.';
comment on column coordinator.directives_sent.expires_at is 'When it expires; no agent receives it afterwards.';
comment on column coordinator.directives_sent.traceparent is 'The W3C trace context of the call that sent it; null: there is none.';

create or replace view coordinator.directives_pending with (security_barrier) as
  select d.id, t.agent, coalesce(r.status, 'unseen') as status, d.priority::integer as priority, d.body, d.actor, d.sent_at, d.expires_at,
         p.name as project
  from coordinator.directives d
  join coordinator.projects p on p.id = d.project_id
  cross join lateral (
    select d.to_agent as agent where d.to_agent is not null
    union
    select a.name from coordinator.agents a
    where d.to_agent is null and d.to_job is null and a.project_id = d.project_id and a.name <> d.actor and (d.to_role is null or a.role = d.to_role)
    union
    select a.name from coordinator.jobs_running r join coordinator.agents a on a.id = r.agent_id where r.id = d.to_job
    union
    -- unread so far, or read only by agents that have ended
    select null
    where d.to_agent is null
      and case when d.to_job is null then not exists (select from coordinator.agents a
                      where a.project_id = d.project_id and a.name <> d.actor and (d.to_role is null or a.role = d.to_role))
               else not exists (select from coordinator.jobs_running r where r.id = d.to_job) end
      and not exists (select from coordinator.directive_receipts o where o.directive_id = d.id and o.status in ('done', 'refused'))
  ) t
  left join coordinator.directive_receipts r on r.directive_id = d.id and r.agent = t.agent
  where d.status = 'open' and d.expires_at > coordinator.now_utc() and (r.status is null or r.status = 'seen')
    and (d.to_job is null or not exists (select from coordinator.directive_receipts o where o.directive_id = d.id and o.status in ('done', 'refused')))
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.directives_pending            is 'Recipients that have not answered an open directive. Each row is a directive and a recipient to whom it is unseen, or seen but neither done nor refused. The recipients of a role or of everyone are the agents that are registered now, except the sender; the recipient of a job is its worker, and one answer is enough.';
comment on column coordinator.directives_pending.id         is 'Number of the directive.';
comment on column coordinator.directives_pending.agent      is 'Name of the recipient; null: no recipient is registered, and none has answered.';
comment on column coordinator.directives_pending.status     is 'unseen: no acknowledgement; seen: seen only.';
comment on column coordinator.directives_pending.priority   is 'Higher comes first.';
comment on column coordinator.directives_pending.body       is 'The text.';
comment on column coordinator.directives_pending.actor      is 'Who sent it.';
comment on column coordinator.directives_pending.sent_at    is 'When it was sent.';
comment on column coordinator.directives_pending.expires_at is 'When it expires; no agent receives it afterwards.';
comment on column coordinator.directives_pending.project    is 'Name of the project.';

create or replace function coordinator.directive_send(
  p_project text, p_body text, p_to_agent text default null, p_to_role text default null, p_to_job uuid default null, p_everyone boolean default false,
  p_priority integer default 0, p_ttl interval default '7 days', p_key text default null, p_data jsonb default '{}',
  p_actor text default null)
returns setof coordinator.directive_dispatch
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_id      bigint;
  v_old     bigint;
  v_count   integer;
  v_meant   text;
  v_job     record;
begin
  p_everyone := coalesce(p_everyone, false);
  perform coordinator.check_text('the directive', p_body, 65536);
  perform coordinator.check_json('the data', p_data, p_object => true);
  perform coordinator.check_ttl(p_ttl);
  if num_nonnulls(p_to_agent, p_to_role, p_to_job) + p_everyone::integer <> 1 then
    raise exception using errcode = 'ZC105', message = 'a directive needs exactly one target',
      hint = 'Give the name of an agent, a role, a job, or everyone.';
  end if;
  if coordinator.is_agent_id(p_to_agent) then
    p_to_agent := coordinator.agent_name(p_project, p_to_agent);
  elsif p_to_agent is not null then -- the agent may register later
    perform coordinator.check_name('the name of the agent', p_to_agent);
  elsif p_to_role is not null then
    perform coordinator.check_name('the role', p_to_role);
  elsif p_to_job is not null then
    select f.ended_at, f.status into v_job from coordinator.job_find(v_project, p_to_job) f;
    if v_job.ended_at is not null then
      raise exception using errcode = 'ZC323', message = format('job %s has ended: it is %s', p_to_job, v_job.status),
        detail = jsonb_build_object('job', p_to_job, 'status', v_job.status)::text, hint = 'Nobody would receive the directive. Send it to an agent or a role.';
    end if;
  end if;
  if p_priority is null or p_priority not between -100 and 100 then
    raise exception using errcode = 'ZC104', message = format('a priority of %s is out of range', coalesce(p_priority::text, 'null')),
      hint = 'Give -100 to 100.';
  end if;
  if p_key is not null then
    perform coordinator.check_key('the key', p_key);
  end if;
  perform coordinator.project_hold(v_project); -- before a directive, like project_delete
  if p_key is not null then
    -- Senders with the same key wait for each other, so that the newest directive stays open.
    perform coordinator.advisory_enter(hashtextextended('coordinator.directive:' || v_project || ':' || p_key, 0));
    update coordinator.directives d set status = 'superseded', ended_at = v_now
    where d.project_id = v_project and d.key = p_key and d.status = 'open'
      and d.to_agent is not distinct from p_to_agent and d.to_role is not distinct from p_to_role and d.to_job is not distinct from p_to_job
    returning d.id into v_old;
  end if;
  insert into coordinator.directives (project_id, to_agent, to_role, to_job, body, data, priority, key, status, actor, sent_at, expires_at)
  values (v_project, p_to_agent, p_to_role, p_to_job, p_body, p_data, p_priority, p_key, 'open', v_actor, v_now, v_now + p_ttl)
  returning directives.id into v_id;
  if v_old is not null then
    perform coordinator.event_append('directive.superseded', p_project, v_old::text, v_actor, v_now, jsonb_build_object('by', v_id));
  end if;
  perform coordinator.event_append('directive.sent', p_project, v_id::text, v_actor, v_now,
    jsonb_build_object('to_agent', p_to_agent, 'to_role', p_to_role, 'to_job', p_to_job, 'body', p_body, 'data', p_data, 'priority', p_priority,
                       'key', p_key, 'expires_at', v_now + p_ttl));
  select count(*) into v_count from coordinator.agents a
  where a.project_id = v_project and case when p_to_agent is not null then a.name = p_to_agent
                                          when p_to_role is not null then a.role = p_to_role and a.name <> v_actor
                                          when p_to_job is not null then a.id = (select r.agent_id from coordinator.jobs_running r where r.id = p_to_job)
                                          else a.name <> v_actor end;
  if v_count = 0 and num_nonnulls(p_to_agent, p_to_role) > 0 then
    v_meant := coordinator.nearest(coalesce(p_to_agent, p_to_role), array(
      select distinct case when p_to_agent is null then a.role else a.name end from coordinator.agents a
      where a.project_id = v_project and (p_to_agent is not null or a.role is not null)));
  end if;
  return query select v_id, p_project, p_to_agent, p_to_role, p_to_job, p_body, p_data, p_priority, p_key, 'open', v_actor, v_now, v_now + p_ttl,
    v_count, v_meant, coordinator.traceparent();
end
$$;
comment on function coordinator.directive_send(text, text, text, text, uuid, boolean, integer, interval, text, jsonb, text) is
  'Send a directive to an agent (its name, or the id of an agent with this name), to a role, to the worker of a job until the job ends, or to everyone who is or will be in the project until p_ttl passes. With p_key, it supersedes the open directive with the same key and target. recipients: the number of registered agents that receive it now; if there are none, meant is a similar name or role.';

create or replace function coordinator.directive_inbox(
  p_project text, p_agent text, p_after text[] default null, p_limit integer default 100)
returns setof coordinator.directives_sent
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_roles   text[];
  v_jobs    uuid[];
begin
  perform coordinator.check_name('the name of the agent', p_agent);
  perform coordinator.check_page(p_limit, p_after, '{number,number}');
  p_agent := coordinator.agent_name(p_project, p_agent);
  v_roles := array(select distinct a.role from coordinator.agents a
                   where a.project_id = v_project and a.name = p_agent and a.role is not null);
  v_jobs := array(select r.id from coordinator.agents a join coordinator.jobs_running r on r.agent_id = a.id
                  where a.project_id = v_project and a.name = p_agent);
  return query
    select d.id, p_project, d.to_agent, d.to_role, d.to_job, d.body, d.data, d.priority::integer, d.key, coalesce(r.status, 'unseen'), d.actor, d.sent_at, d.expires_at, d.traceparent
    from coordinator.directives d
    left join coordinator.directive_receipts r on r.directive_id = d.id and r.agent = p_agent
    where d.project_id = v_project and d.status = 'open' and d.expires_at > coordinator.now_utc()
      and (d.to_agent = p_agent or d.to_role = any (v_roles)
           or d.to_job = any (v_jobs) and not exists (
                select from coordinator.directive_receipts o where o.directive_id = d.id and o.status in ('done', 'refused'))
           or d.to_agent is null and d.to_role is null and d.to_job is null and d.actor <> p_agent)
      and (r.status is null or r.status = 'seen')
      and (-d.priority, d.id) > (coalesce(-p_after[1]::bigint, -101), p_after[2]::bigint)
    order by -d.priority, d.id limit p_limit;
end
$$;
comment on function coordinator.directive_inbox(text, text, text[], integer) is
  'List the open directives for an agent, given by name or id: for its name, its registered roles, the jobs that it runs, and everyone, except those that it has done or refused. They are sorted by priority, then in order of sending. status: unseen or seen. p_after: array[priority, id] of the last row read.';

create or replace function coordinator.directive_acknowledge(
  p_project text, p_directive bigint, p_agent text, p_status text default 'done', p_reason text default null)
returns setof coordinator.directive_receipts
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_now       timestamptz := coordinator.now_utc();
  v_directive coordinator.directives;
  v_receipt   coordinator.directive_receipts;
begin
  perform coordinator.check_name('the name of the agent', p_agent);
  if p_status is null or p_status not in ('seen', 'done', 'refused') then
    raise exception using errcode = 'ZC105', message = format('invalid acknowledgement "%s"', left(p_status, 200)),
      hint = 'Use seen, done or refused.';
  elsif p_status = 'refused' and p_reason is null then
    raise exception using errcode = 'ZC101', message = 'a refusal needs a reason', hint = 'Tell the sender why, in a sentence.';
  end if;
  perform coordinator.check_reason(p_reason);
  -- Other recipients may hold the same lock. A revocation waits for it, or this call waits for the revocation.
  select * into v_directive from coordinator.directives d where d.id = p_directive and d.project_id = v_project for share;
  if v_directive.id is null then
    raise exception using errcode = 'ZC204', message = format('there is no directive %s in project "%s"', p_directive, p_project),
      hint = format('See "coordinator directive inbox --agent %s".', coordinator.shell_word(p_agent));
  end if;
  p_agent := coordinator.agent_name(p_project, p_agent);
  select * into v_receipt from coordinator.directive_receipts r where r.directive_id = p_directive and r.agent = p_agent;
  if v_receipt.status = p_status or v_receipt.status in ('done', 'refused') and p_status = 'seen' then
    return next v_receipt;
    return; -- a repetition: an earlier response was lost, or two incarnations of the name answered
  elsif v_receipt.status in ('done', 'refused') then
    raise exception using errcode = 'ZC303',
      message = format('agent "%s" already answered directive %s with %s', p_agent, p_directive, v_receipt.status),
      hint = 'An answer is final; the manager can send a new directive.';
  elsif v_directive.status <> 'open' or v_directive.expires_at <= v_now then
    raise exception using errcode = 'ZC304', message = format('directive %s is %s', p_directive,
        case v_directive.status when 'open' then 'expired' else v_directive.status end),
      hint = 'It is no longer open; read the inbox again.';
  elsif v_directive.to_agent <> p_agent
     or v_directive.to_role is not null and not exists (
          select from coordinator.agents a where a.project_id = v_project and a.name = p_agent and a.role = v_directive.to_role)
     or v_directive.to_job is not null and not exists (
          select from coordinator.jobs_running r join coordinator.agents a on a.id = r.agent_id
          where r.id = v_directive.to_job and a.project_id = v_project and a.name = p_agent) then
    raise exception using errcode = 'ZC105', message = format('directive %s is not addressed to agent "%s"', p_directive, p_agent),
      hint = 'It is for ' || coalesce('agent "' || v_directive.to_agent || '".', 'agents registered with role "' || v_directive.to_role || '".',
                                      'the worker of job ' || v_directive.to_job || '.');
  end if;
  insert into coordinator.directive_receipts as r (directive_id, agent, status, reason, seen_at, acknowledged_at)
  values (p_directive, p_agent, p_status, p_reason, v_now, v_now)
  on conflict on constraint directive_receipts_pkey do update
  set status = excluded.status, reason = excluded.reason, acknowledged_at = excluded.acknowledged_at
  where r.status = 'seen'
  returning * into v_receipt;
  if not found then -- another incarnation of the name has just answered
    select * into v_receipt from coordinator.directive_receipts r where r.directive_id = p_directive and r.agent = p_agent;
    if v_receipt.status = p_status or p_status = 'seen' then
      return next v_receipt;
      return;
    end if;
    raise exception using errcode = 'ZC303', message = format('agent "%s" already answered directive %s', p_agent, p_directive),
      hint = 'An answer is final; read the inbox again.';
  end if;
  perform coordinator.event_append('directive.acknowledged', p_project, p_directive::text, p_agent, v_now,
    jsonb_build_object('agent', p_agent, 'status', p_status, 'reason', p_reason));
  return next v_receipt;
end
$$;
comment on function coordinator.directive_acknowledge(text, bigint, text, text, text) is
  'Acknowledge a directive for an agent, given by name or id: seen, then done, or refused with a reason. Repeating an acknowledgement changes nothing. ZC303: it already has another answer. ZC304: it is no longer open.';

create or replace function coordinator.directive_enter(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys text[]   := array(select distinct p ->> 'key' from jsonb_array_elements(p_parts) p where p ->> 'key' is not null);
  v_ids  bigint[] := array(select (p ->> 'directive')::bigint from jsonb_array_elements(p_parts) p);
  v_lock bigint;
begin
  for v_lock in
    select distinct hashtextextended('coordinator.directive:' || p_project_id || ':' || k, 0) from unnest(v_keys) k order by 1
  loop
    perform coordinator.advisory_enter(v_lock);
  end loop;
  perform from coordinator.directives d
  where d.id in (select unnest(v_ids)
                 union all
                 select o.id from coordinator.directives o
                 where o.project_id = p_project_id and o.key = any (v_keys) and o.status = 'open')
    and d.project_id = p_project_id
  order by d.id for no key update;
end
$$;
comment on function coordinator.directive_enter(bigint, jsonb) is
  'Take the locks of all parts of a transaction that concern directives: those of keys, then the directives in the order of their ids. Internal.';

create or replace function coordinator.directive_revoke(
  p_project text, p_directive bigint, p_reason text default null, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_status  text;
begin
  perform coordinator.check_reason(p_reason);
  update coordinator.directives set status = 'revoked', ended_at = v_now, reason = p_reason
  where id = p_directive and project_id = v_project and status = 'open' and expires_at > v_now;
  if not found then
    select case status when 'open' then 'expired' else status end into v_status
    from coordinator.directives where id = p_directive and project_id = v_project;
    if v_status is null then
      raise exception using errcode = 'ZC204', message = format('there is no directive %s in project "%s"', p_directive, p_project),
        hint = 'See "coordinator directive list".';
    elsif v_status = 'revoked' then
      return false;
    end if;
    raise exception using errcode = 'ZC304', message = format('directive %s is %s', p_directive, v_status),
      hint = 'It is no longer open; there is nothing to revoke.';
  end if;
  perform coordinator.event_append('directive.revoked', p_project, p_directive::text, coordinator.actor_name(p_actor), v_now,
    jsonb_build_object('reason', p_reason));
  return true;
end
$$;
comment on function coordinator.directive_revoke(text, bigint, text, text) is
  'Revoke an open directive; false if it was already revoked.';

create or replace function coordinator.directive_list(
  p_project text, p_open boolean default true, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.directives_sent
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  return query
    select d.id, p_project, d.to_agent, d.to_role, d.to_job, d.body, d.data, d.priority::integer, d.key,
           case when d.status = 'open' and d.expires_at <= coordinator.now_utc() then 'expired' else d.status end,
           d.actor, d.sent_at, d.expires_at, d.traceparent
    from coordinator.directives d
    where d.project_id = v_project and d.id > coalesce(p_after[1]::bigint, 0)
      and (not p_open or d.status = 'open' and d.expires_at > coordinator.now_utc())
    order by d.id limit p_limit;
end
$$;
comment on function coordinator.directive_list(text, boolean, text[], integer) is
  'List the directives of a project in order of sending; only open ones, unless p_open is false. p_after: array[id] of the last row read.';

create or replace function coordinator.directive_pending(
  p_project text, p_directive bigint default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.directives_pending
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_directive coordinator.directives;
  v_count     integer;
begin
  perform coordinator.check_page(p_limit, p_after, '{number,number,text}');
  -- The same query as the view, but for one directive at a time: with the recipients of all directives at once, each page would compute all rows.
  for v_directive in
    select * from coordinator.directives d
    where d.project_id = v_project and d.status = 'open' and d.expires_at > coordinator.now_utc()
      and (p_directive is null or d.id = p_directive)
      and (-d.priority, d.id) >= (coalesce(-p_after[1]::bigint, -101), p_after[2]::bigint)
    order by -d.priority, d.id
  loop
    return query
      select v_directive.id, t.agent, coalesce(r.status, 'unseen'), v_directive.priority::integer, v_directive.body, v_directive.actor,
             v_directive.sent_at, v_directive.expires_at, p_project
      from (select v_directive.to_agent as agent where v_directive.to_agent is not null
            union
            select a.name from coordinator.agents a
            where v_directive.to_agent is null and v_directive.to_job is null and a.project_id = v_project and a.name <> v_directive.actor
              and (v_directive.to_role is null or a.role = v_directive.to_role)
            union
            select a.name from coordinator.jobs_running r join coordinator.agents a on a.id = r.agent_id where r.id = v_directive.to_job
            union
            select null
            where v_directive.to_agent is null
              and case when v_directive.to_job is null then not exists (select from coordinator.agents a
                              where a.project_id = v_directive.project_id and a.name <> v_directive.actor and (v_directive.to_role is null or a.role = v_directive.to_role))
                       else not exists (select from coordinator.jobs_running r where r.id = v_directive.to_job) end
              and not exists (select from coordinator.directive_receipts o where o.directive_id = v_directive.id and o.status in ('done', 'refused'))) t
      left join coordinator.directive_receipts r on r.directive_id = v_directive.id and r.agent = t.agent
      where (r.status is null or r.status = 'seen')
        and (v_directive.to_job is null or not exists (
              select from coordinator.directive_receipts o where o.directive_id = v_directive.id and o.status in ('done', 'refused')))
        and (v_directive.id is distinct from p_after[2]::bigint or coalesce(t.agent, '') > p_after[3])
      order by t.agent limit p_limit;
    get diagnostics v_count = row_count;
    p_limit := p_limit - v_count;
    exit when p_limit = 0;
  end loop;
end
$$;
comment on function coordinator.directive_pending(text, bigint, text[], integer) is
  'List the recipients that have not answered an open directive of the project, or this directive (see directives_pending), by priority, order of sending and name. p_after: array[priority, id, agent] of the last row read.';

create or replace function coordinator.directive_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now       timestamptz := coordinator.now_utc();
  v_directive record;
  v_count     integer := 0;
begin
  perform coordinator.check_page(p_limit);
  for v_directive in
    with due as (
      select d.id from coordinator.directives d
      where d.id = any (array(select o.id from coordinator.directives o where o.status = 'open' and o.expires_at <= v_now order by o.expires_at limit p_limit)
                        || array(select o.id from coordinator.directives o where o.status = 'open' and o.to_job is not null
                                   and not exists (select from coordinator.jobs_open j where j.id = o.to_job) limit p_limit))
        and d.status = 'open'
      order by d.id limit p_limit for update skip locked)
    update coordinator.directives d set status = 'expired', ended_at = v_now from due, coordinator.projects p
    where d.id = due.id and p.id = d.project_id
    returning d.id, p.name as project
  loop
    perform coordinator.event_append('directive.expired', v_directive.project, v_directive.id::text, 'coordinator', v_now, '{}');
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function coordinator.directive_expire(integer) is
  'Mark up to p_limit open directives as expired whose TTL has passed or whose job has ended; returns how many. Repeat until 0.';

create or replace function coordinator.directive_prune(p_retention interval default '30 days', p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.prune_rows('coordinator.directives', 'ended_at', p_retention, p_limit, 'status <> ''open''');
end
$$;
comment on function coordinator.directive_prune(interval, integer) is
  'Delete up to p_limit directives that ended more than p_retention ago, with their receipts; returns how many. Repeat until 0. No events.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_directives_unacknowledged', 'directive_sample', 'gauge', '{project}', '', 'Open directives that no agent has acknowledged; at most 10,000 open directives are examined.'),
  ('coordinator_directive_oldest_seconds', 'directive_sample', 'gauge', '{project}', 'seconds', 'Age of the oldest open directive that no agent has acknowledged.');

create or replace function coordinator.directive_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with waiting as (
      select d.project_id, d.sent_at from (select * from coordinator.directives o where o.status = 'open' limit 10000) d
      where not exists (select from coordinator.directive_receipts r where r.directive_id = d.id)),
    counted as (
      select w.project_id, count(*) as n, min(w.sent_at) as since from waiting w group by w.project_id),
    placed as (
      select coordinator.metric_label(p.name, row_number() over (order by c.n desc, p.name)) as project, c.n, c.since
      from counted c join coordinator.projects p on p.id = c.project_id),
    shown as materialized (
      select p.project, sum(p.n) as n, min(p.since) as since from placed p group by p.project)
    select 'coordinator_directives_unacknowledged', array[s.project], s.n::double precision from shown s
    union all
    select 'coordinator_directive_oldest_seconds', array[s.project], coordinator.metric_age(s.since) from shown s;
end
$$;
comment on function coordinator.directive_sample(timestamptz) is
  'Sample the metrics of directives. Internal.';
