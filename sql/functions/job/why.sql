-- Why a job is in its state: one sentence, with names.

insert into coordinator.rights (function, role) values
  ('job_why', 'reader');

create or replace function coordinator.job_instant(p_at timestamptz) returns text
language sql stable parallel safe
return to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"');
comment on function coordinator.job_instant(timestamptz) is
  'Format an instant for people. Internal.';

create or replace function coordinator.job_ending(p_outcome text, p_error text) returns text
language sql immutable parallel safe
return case p_outcome
  when 'worker_lost' then 'lost its worker'
  when 'stalled' then 'reported no progress in time'
  when 'deadline' then 'passed its deadline'
  else 'failed' || coalesce(': ' || nullif(rtrim(left(split_part(ltrim(p_error, E' \r\n'), E'\n', 1), 500), E'. \r'), ''), '') end;
comment on function coordinator.job_ending(text, text) is
  'Describe how an attempt ended that did not complete; of an error, its first line. Internal.';

-- The queue, the workers and the position of a job that could be claimed.
create or replace function coordinator.job_why_queued(
  p_project_id bigint, p_job uuid, out cause text, out sentence text, out until timestamptz, out place bigint, out names text[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_job    coordinator.jobs_open;
  v_queue  coordinator.queues;
  v_known  integer; -- all workers
  v_fit    integer; -- workers with its type
  v_able   integer; -- workers that also have its labels
  v_prompt integer; -- workers whose heartbeat is not overdue
  v_lane   bigint;
  v_turn   bigint;
  v_limit  record;
begin
  select * into v_job from coordinator.jobs_open j where j.id = p_job;
  select * into v_queue from coordinator.queues q where q.project_id = p_project_id and q.name = v_job.queue;
  select count(*), count(*) filter (where fits), count(*) filter (where able), count(*) filter (where able and prompt),
         (array_agg(w.name order by prompt desc, w.name) filter (where able))[1:10]
  into v_known, v_fit, v_able, v_prompt, names
  from (select a.name, v_job.type = any (a.job_types) as fits, v_job.type = any (a.job_types) and a.labels @> v_job.labels as able,
               a.heartbeat_at + a.ttl > v_now as prompt
        from coordinator.agents a where a.project_id = p_project_id and cardinality(a.job_types) > 0) w;
  if v_queue.paused_at is not null then
    cause := 'paused';
    names := array[v_queue.paused_by];
    sentence := format('Queue "%s" was paused by "%s" at %s%s.', v_job.queue, v_queue.paused_by, coordinator.job_instant(v_queue.paused_at),
                       coalesce(': ' || v_queue.pause_reason, ''));
  elsif v_fit = 0 then
    cause := 'no_worker';
    sentence := format('No worker of type "%s" is registered%s.', v_job.type,
                       case v_known when 0 then '' when 1 then ', only one of other types' else format(', only %s of other types', v_known) end);
  elsif v_able = 0 then
    cause := 'no_worker';
    select array[a.name], format('It needs a worker with %s %s: %s of type "%s" %s, and "%s" lacks %s.',
             case cardinality(v_job.labels) when 1 then 'the label' else 'the labels' end, array_to_string(v_job.labels, ', '),
             case v_fit when 1 then 'one' else v_fit::text end, v_job.type, case v_fit when 1 then 'is registered' else 'are registered' end,
             a.name, array_to_string(m.missing, ', '))
    into names, sentence
    from coordinator.agents a
    cross join lateral (select array(select l from unnest(v_job.labels) l where l <> all (a.labels) order by 1) as missing) m
    where a.project_id = p_project_id and v_job.type = any (a.job_types) order by cardinality(m.missing), a.name limit 1;
  elsif v_prompt = 0 then
    cause := 'no_worker';
    sentence := format('The heartbeat of every worker that can run it is overdue: "%s"%s.', names[1],
                       case v_able when 1 then '' when 2 then ' and another' else format(' and %s others', v_able - 1) end);
  end if;
  if cause is null then
    select * into v_limit from coordinator.limit_why(v_job);
    cause := v_limit.cause;
    sentence := v_limit.sentence;
    until := v_limit.until;
    names := case when v_limit.cause is null then names else coalesce(v_limit.names, '{}') end;
  end if;
  if cause is null then
    cause := 'turn';
    select l.id into v_lane from coordinator.job_lanes l where l.class_id = v_job.class_id and l.key = coalesce(v_job.key, '');
    select 1 + count(*) into place
    from (select from coordinator.jobs_ready r
          where r.class_id = v_job.class_id and r.lane_id = coalesce(v_lane, 0)
            and (r.rank, r.id) < (coordinator.job_rank(v_job.scheduled_at, v_job.priority, v_queue.ageing), p_job) limit 100000) before;
    if v_lane is not null then
      select 1 + count(*) into v_turn from coordinator.job_permits p
      where p.class_id = v_job.class_id
        and p.turn < (select min(m.turn) from coordinator.job_permits m where m.class_id = v_job.class_id and m.lane_id = v_lane);
    end if;
    sentence := concat(
      'It waits for its turn in queue "', v_job.queue, '"',
      case when v_lane is not null then format(', in which %s number %s in line',
        case when v_job.key is null then 'jobs without a key are' else format('key "%s" is', v_job.key) end, v_turn) end,
      case when place = 1 then ': it is next' else format(': it is number %s', case when place > 100000 then 'more than 100000' else place::text end) end,
      case when v_lane is null then ' among the jobs of its type' when v_job.key is null then ' of them' else ' of its key' end,
      ', and ', case v_prompt when 1 then format('worker "%s"', names[1]) when 2 then format('workers "%s" and "%s"', names[1], names[2])
                              else format('worker "%s" and %s others', names[1], v_prompt - 1) end, ' can run it.');
  end if;
end
$$;
comment on function coordinator.job_why_queued(bigint, uuid) is
  'Explain why a queued job is not claimed: cause, sentence, until when, its position, and the names of those involved. Internal.';

create or replace function coordinator.job_why_paused(p_job uuid, p_paused jsonb) returns text
language sql stable
return case when p_paused is not null then format('%s was paused by "%s" at %s%s.',
  case when p_paused ->> 'job' = p_job::text then 'It' else format('The tree of job %s', p_paused ->> 'job') end, p_paused ->> 'by',
  coordinator.job_instant((p_paused ->> 'at')::timestamptz), ': ' || (p_paused ->> 'reason')) end;
comment on function coordinator.job_why_paused(uuid, jsonb) is
  'Explain who paused a job, when and why: what jobs_open.paused says. Internal.';

create or replace function coordinator.job_why_waiting(p_project_id bigint, p_job uuid, p_cause text, out sentence text, out names text[], out until timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_on record;
begin
  case p_cause
  when 'jobs' then
    select count(*) over () as jobs, d.after_id, f.type, f.status, f.worker, case j.after_mode when 'any' then 'or of' else 'and of' end as joined into v_on
    from coordinator.jobs_open j join coordinator.job_dependencies d on d.job_id = j.id cross join lateral coordinator.job_find(p_project_id, d.after_id) f
    where j.id = p_job order by f.started_at, d.after_id limit 1;
    names := array_remove(array[v_on.worker], null);
    sentence := concat(
      format('It waits for the end of job %s of type "%s", which %s', v_on.after_id, v_on.type,
             case v_on.status when 'running' then format('runs on worker "%s"', v_on.worker) else 'is ' || v_on.status end),
      case v_on.jobs when 1 then '' when 2 then format(', %s another job', v_on.joined) else format(', %s %s other jobs', v_on.joined, v_on.jobs - 1) end, '.');
  when 'wait' then
    select concat('It waits ', case when jsonb_array_length(w.conditions) > 1 then 'for the first of ' when c.timed then 'for ' else 'until ' end, c.list,
                  case when c.timed and w.due_at is not null then ', until ' || coordinator.job_instant(w.due_at) end,
                  '; worker "', w.worker, '" suspended it at ', coordinator.job_instant(w.began_at), '.'), array[w.worker]
    into sentence, names
    from coordinator.job_waits w cross join lateral (
      select string_agg(case
               when c ? 'at' then case when jsonb_array_length(w.conditions) > 1 then 'the time ' else '' end || coordinator.job_instant((c ->> 'at')::timestamptz)
               when c ? 'signal' then concat(format('signal "%s"', c ->> 'signal'), ' with the value ' || left((c -> 'value')::text, 100))
               when c ? 'event' then concat('event ', c ->> 'event', ' with the key "' || (c ->> 'key') || '"')
               when c ? 'directive' then format('the answer of directive %s', c ->> 'directive')
               when jsonb_array_length(c -> 'jobs') = 1 then format('job %s', c -> 'jobs' ->> 0)
               else format('%s of %s jobs', c ->> 'mode', jsonb_array_length(c -> 'jobs')) end, ', ' order by n) as list,
             bool_and(not c ? 'at') as timed
      from jsonb_array_elements(w.conditions) with ordinality u (c, n)) c
    where w.job_id = p_job;
  when 'answer' then
    select concat(format('It has waited for the answer of a manager since %s: worker "%s" asked "%s"', coordinator.job_instant(w.began_at), w.worker, w.question),
                  ' (' || array_to_string(w.options, ', ') || ')', ', until ' || coordinator.job_instant(w.due_at),
                  ', then it is ' || w.fallback::text, '.'), array[w.worker]
    into sentence, names from coordinator.job_waits w where w.job_id = p_job;
  when 'tree' then
    select j.paused into v_on from coordinator.jobs_open j where j.id = p_job;
    names := array_remove(array[v_on.paused ->> 'by'], null);
    sentence := coalesce(coordinator.job_why_paused(p_job, v_on.paused), 'Its tree was paused, and has been resumed: it is queued again in a moment.');
  when 'lock' then
    select w.sentence, w.names, w.until into sentence, names, until from coordinator.job_why_lock(p_project_id, p_job) w;
  when 'limit' then
    select coalesce(w.sentence, 'It waited for the limit of its tree, which has room now: it will be claimed in a moment.'), w.names, w.until
    into sentence, names, until from coordinator.jobs_open j cross join lateral coordinator.limit_why(j) w where j.id = p_job;
  else
    sentence := format('It waits: %s.', p_cause);
  end case;
end
$$;
comment on function coordinator.job_why_waiting(bigint, uuid, text) is
  'Say what a job waits for whose cause is p_cause: a sentence, the names of who matters and, for a lock or a limit, until when at the latest. Internal.';

create or replace function coordinator.job_why(p_project text, p_job uuid)
returns table (id uuid, status text, cause text, sentence text, until timestamptz, place bigint, names text[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
  v_job     coordinator.jobs;
  v_running record;
  v_last    jsonb;
  v_attempt text;
  v_cause   text;
  v_text    text;
  v_until   timestamptz;
  v_place   bigint;
  v_names   text[];
begin
  select * into v_job from coordinator.job_show(p_project, p_job);
  v_attempt := format('attempt %s of %s', v_job.attempts, v_job.max_attempts);
  v_cause := coalesce(v_job.reason, v_job.status);
  v_names := array_remove(array[v_job.worker], null);
  if v_job.status in ('queued', 'scheduled', 'waiting') and coordinator.job_doomed(v_project, array[p_job], '{cancel}') <> '{}' then
    return query
      select p_job, v_job.status, 'cancelling',
             format('Its tree was cancelled by "%s" at %s%s; it ends when its turn comes.', c.actor, coordinator.job_instant(c.requested_at), coalesce(': ' || c.reason, '')),
             null::timestamptz, null::bigint, array[c.actor]
      from coordinator.job_changes c
      where c.project_id = v_project and c.change = 'cancel' and p_job = any (coordinator.job_members(v_project, c.jobs, true)) order by c.id limit 1;
    return;
  end if;
  if (v_job.status = 'queued' or v_job.waiting_for = 'tree') and coordinator.job_doomed(v_project, array[p_job], '{pause}') <> '{}' then
    select c.paused into v_last from coordinator.jobs_open j join coordinator.job_changes c
      on c.project_id = v_project and c.change = 'pause' and p_job = any (coordinator.job_members(v_project, c.jobs, true))
    where j.id = p_job and j.paused is null order by c.id desc limit 1;
    if found then
      return query select p_job, v_job.status, 'tree', coordinator.job_why_paused(p_job, v_last), null::timestamptz, null::bigint, array[v_last ->> 'by'];
      return;
    end if;
  end if;
  case v_job.status
  when 'queued' then
    select w.cause, w.sentence, w.until, w.place, w.names into v_cause, v_text, v_until, v_place, v_names from coordinator.job_why_queued(v_project, p_job) w;
  when 'scheduled' then
    v_until := v_job.scheduled_at;
    select j.past -> -1 into v_last from coordinator.jobs_open j where j.id = p_job;
    v_names := array_remove(array[v_last ->> 'worker'], null);
    v_cause := case when v_last is null then 'scheduled' when v_last ->> 'outcome' = 'snoozed' then 'snoozed' else 'back_off' end;
    v_text := case v_cause
      when 'scheduled' then format('It is scheduled for %s.', coordinator.job_instant(v_until))
      when 'snoozed' then format('Worker "%s" snoozed it until %s.', v_last ->> 'worker', coordinator.job_instant(v_until))
      else format('It waits until %s to be tried again: attempt %s of %s by "%s" %s.', coordinator.job_instant(v_until), v_last ->> 'attempt',
                  v_job.max_attempts, v_last ->> 'worker', coordinator.job_ending(v_last ->> 'outcome', v_last ->> 'error')) end;
  when 'waiting' then
    v_cause := v_job.waiting_for;
    select coalesce(w.due_at, d.due_at) into v_until
    from coordinator.jobs_waiting w left join coordinator.job_waits d on d.job_id = w.id where w.id = p_job;
    select w.sentence, w.names, case when v_cause in ('lock', 'limit') then w.until else v_until end into v_text, v_names, v_until from coordinator.job_why_waiting(v_project, p_job, v_cause) w;
  when 'running' then
    select r.cancel_at, r.cancelled_by, r.cancel_reason, a.heartbeat_at + a.ttl as overdue_at, r.deadline_at, a.name into v_running
    from coordinator.jobs_running r left join coordinator.agents a on a.id = r.agent_id where r.id = p_job;
    v_until := coalesce(v_running.cancel_at, v_running.deadline_at);
    v_text := concat(
      format('Worker "%s" has run it since %s (%s)', coalesce(v_job.worker, v_job.worker_id::text), coordinator.job_instant(v_job.started_at), v_attempt),
      ', ' || round(v_job.percent::numeric, 1)::double precision || ' %', ': ' || v_job.message,
      case when v_running.cancel_at is not null then
        format('; "%s" asked to cancel it%s, and the worker must stop by %s', v_running.cancelled_by,
               coalesce(': ' || v_running.cancel_reason, ''), coordinator.job_instant(v_running.cancel_at))
      when v_running.overdue_at is null or v_running.overdue_at <= coordinator.now_utc() then '; the worker is lost, and the job will be rescued' end,
      '.');
    v_cause := case when v_running.cancel_at is not null then 'cancel_requested' else 'running' end;
  when 'completed' then
    v_text := format('It completed at %s: worker "%s" ran it for %s (%s).', coordinator.job_instant(v_job.completed_at), v_job.worker,
                     coordinator.duration_text(date_trunc('milliseconds', v_job.completed_at - v_job.started_at)), v_attempt);
  when 'failed' then
    v_text := concat(format('It failed at %s: ', coordinator.job_instant(v_job.completed_at)),
      case v_job.reason
        when 'crash_loop' then format('three attempts in a row lost their workers, the last one "%s"', v_job.worker)
        else format('%s by "%s" %s', v_attempt, v_job.worker, coordinator.job_ending(v_job.reason, v_job.error)) end,
      case when v_job.attempts < v_job.max_attempts and v_job.reason = 'error' then '; the error was final'
           when v_job.attempts < v_job.max_attempts and v_job.reason <> 'crash_loop' then '; its rescue policy is "fail"' end,
      '; it was retried as ' || v_job.retried_as, '.');
  when 'cancelled' then
    v_names := array[v_job.ended_by];
    v_text := case v_job.reason
      when 'replaced' then format('It was replaced at %s by a job of "%s" with the same dedupe key, "%s".', coordinator.job_instant(v_job.completed_at),
                                  v_job.ended_by, v_job.dedupe_key)
      when 'dependency' then format('It was cancelled at %s: %s did not complete.', coordinator.job_instant(v_job.completed_at), coalesce((
        select format('job %s of type "%s", which it waited for,', e.id, e.type) from coordinator.jobs_ended e
        where e.project_id = v_project and e.id = any (v_job.after) and e.status <> 'completed' order by e.completed_at, e.id limit 1),
        'a job that it waited for'))
      else format('It was cancelled at %s by "%s"%s.', coordinator.job_instant(v_job.completed_at), v_job.ended_by, coalesce(': ' || v_job.error, '')) end;
  else
    v_text := format('It expired at %s: no attempt had begun in time.', coordinator.job_instant(v_job.completed_at));
  end case;
  return query select p_job, v_job.status, v_cause, v_text, v_until, v_place, coalesce(v_names, '{}');
end
$$;
comment on function coordinator.job_why(text, uuid) is
  'Explain in one sentence why a job is in its state. cause: turn, paused, no_worker, held, limit, budget, rate, scheduled, back_off, snoozed, jobs, lock, limit, wait, answer, tree, cancelling, running, cancel_requested, completed, or the reason of the end; until: the latest time at which that changes; place: its position among the jobs that are claimed in the same order, of which 100,000 are counted; names: the workers or people in the sentence. ZC209: there is no such job.';
