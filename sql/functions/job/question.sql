-- Questions of jobs (see suspend.sql): a worker asks for an approval, its job waits without a worker, and a manager answers.
--
-- A job has one question at a time. The answer is stored like the result of a step (kind answer), together with who gave it. If nobody
-- answers in time, the default is stored. Nobody can answer their own question.

insert into coordinator.event_types (type, key, data, meaning) values
  ('job.asked',    'name of the queue', '{ids,step,question}', 'A job asked a question and waits for a manager to answer.'),
  ('job.answered', 'name of the queue', '{ids,step}',          'A manager answered a job''s question.');

insert into coordinator.rights (function, role) values
  ('job_ask',       'agent'),
  ('job_answer',    'manager'),
  ('job_questions', 'reader');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_question', 2000, 'characters', 'A job''s question.'),
  ('job_options',  20,   'options',    'Possible answers per question.');

create or replace view coordinator.job_questions with (security_barrier) as
  select w.job_id as job, w.name as step, w.ordinal, w.question, w.options, w.fallback, w.worker, w.began_at as asked_at, w.due_at, j.type, j.queue, p.name as project
  from coordinator.job_waits w
  join coordinator.jobs_open j on j.id = w.job_id
  join coordinator.projects p on p.id = w.project_id
  where w.question is not null and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.job_questions          is 'Job questions that wait for a manager''s answer.';
comment on column coordinator.job_questions.job      is 'The job.';
comment on column coordinator.job_questions.step     is 'Name of the step that stores the answer.';
comment on column coordinator.job_questions.ordinal  is 'Number of the step among those of this name.';
comment on column coordinator.job_questions.question is 'The question.';
comment on column coordinator.job_questions.options  is 'The possible answers; null: any JSON value.';
comment on column coordinator.job_questions.fallback is 'Answer used if nobody answers by due_at; null: none.';
comment on column coordinator.job_questions.worker   is 'Name of the worker that asked; it may not answer.';
comment on column coordinator.job_questions.asked_at is 'When it asked.';
comment on column coordinator.job_questions.due_at   is 'When the question ends without an answer; null: never.';
comment on column coordinator.job_questions.type     is 'Type of the job.';
comment on column coordinator.job_questions.queue    is 'Queue of the job.';
comment on column coordinator.job_questions.project  is 'Name of the project.';

create or replace function coordinator.job_answer_check(p_what text, p_answer jsonb, p_options text[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_json(p_what, p_answer);
  if p_options is not null and (jsonb_typeof(p_answer) <> 'string' or p_answer #>> '{}' <> all (p_options)) then
    raise exception using errcode = 'ZC105', message = format('%s is %s, which is not an option', p_what, left(p_answer::text, 200)),
      hint = coalesce('Did you mean "' || coordinator.nearest(p_answer #>> '{}', p_options) || '"? ', '') || format('The options are %s.', array_to_string(p_options, ', '));
  end if;
end
$$;
comment on function coordinator.job_answer_check(text, jsonb, text[]) is
  'Reject an answer that is invalid or not among the options. Internal.';

create or replace function coordinator.job_ask(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_step text, p_question text, p_options text[] default null, p_ttl interval default null,
  p_fallback jsonb default null, p_ordinal integer default 1)
returns setof coordinator.job_suspension
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  v_wait    coordinator.job_waits;
  v_begun   coordinator.job_suspension;
begin
  perform coordinator.check_isolation('jobs are suspended');
  perform coordinator.job_step_name(p_step, p_ordinal);
  perform coordinator.check_name('the question', p_question, 2000); -- a manager must see exactly the text that is stored
  if p_options is not null then
    perform coordinator.check_list('the options', p_options);
    if cardinality(p_options) not between 1 and 20 then
      raise exception using errcode = case cardinality(p_options) when 0 then 'ZC101' else 'ZC102' end, message = format('%s options; 1 to 20 are allowed', cardinality(p_options)),
        hint = 'Give 1 to 20 options, or none to accept any answer.';
    end if;
  end if;
  if p_ttl is not null then
    perform coordinator.check_ttl(p_ttl);
  end if;
  if p_fallback is not null then
    perform coordinator.job_answer_check('the default answer', p_fallback, p_options);
    if p_ttl is null then
      raise exception using errcode = 'ZC105', message = 'a default answer needs a TTL', hint = 'Give a TTL, or omit the default.';
    end if;
  end if;
  return query select * from coordinator.job_wait_over(p_job, p_step, p_ordinal, 'answer');
  if found then
    return;
  end if;
  v_wait.job_id := p_job;
  v_wait.project_id := v_project;
  v_wait.name := p_step;
  v_wait.ordinal := p_ordinal;
  v_wait.conditions := '[]';
  v_wait.question := p_question;
  v_wait.options := p_options;
  v_wait.fallback := p_fallback;
  v_wait.fence := p_fence;
  v_wait.worker := coordinator.job_worker(p_agent);
  v_wait.began_at := v_now;
  v_wait.due_at := v_now + p_ttl;
  v_wait.after_seq := 0;
  select * into v_begun from coordinator.job_wait_begin(v_attempt, p_project, v_wait, '{}');
  if v_begun.status = 'waiting' then
    perform coordinator.job_tell('job.asked', v_project, p_project, j.queue, v_wait.worker, v_now, array[p_job],
                                 jsonb_build_object('step', p_step, 'question', p_question)) from coordinator.jobs_open j where j.id = p_job;
  end if;
  return next v_begun;
end
$$;
comment on function coordinator.job_ask(text, uuid, uuid, bigint, text, text, text[], interval, jsonb, integer) is
  'Ask managers a question. The job waits for the answer without its worker, slots and locks. p_options: the possible answers; null: any JSON value. After p_ttl without an answer, the answer is p_fallback, or null. The outcome is stored as a step: "answer", and in "by" who gave it; null: nobody. The attempt ends without being spent. If the question already has an answer, the job stays with its worker, and the outcome is returned as the answer. ZC320: the fence is stale.';

create or replace function coordinator.job_answer(
  p_project text, p_job uuid, p_value jsonb, p_reason text default null, p_step text default null, p_ordinal integer default null, p_actor text default null)
returns setof coordinator.job_steps
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_wait    coordinator.job_waits;
  v_step    coordinator.job_steps;
begin
  perform coordinator.check_isolation('questions are answered');
  perform coordinator.check_reason(p_reason);
  perform coordinator.job_step_name(coalesce(p_step, 'any'), coalesce(p_ordinal, 1));
  perform coordinator.check_json('the answer', p_value);
  perform from coordinator.jobs_waiting w where w.id = p_job for update;
  select * into v_wait from coordinator.job_waits w
  where w.job_id = p_job and w.project_id = v_project and w.question is not null
    and w.name = coalesce(p_step, w.name) and w.ordinal = coalesce(p_ordinal, w.ordinal);
  if not found then
    perform coordinator.job_find(v_project, p_job);
    select * into v_step from coordinator.job_steps s
    where s.project = p_project and s.job = p_job and s.kind = 'answer' and s.name = coalesce(p_step, s.name) and s.ordinal = coalesce(p_ordinal, s.ordinal)
    order by s.place desc limit 1;
    if not found then
      raise exception using errcode = 'ZC213', message = format('job %s does not ask %s', p_job, coalesce('"' || left(p_step, 200) || '"', 'anything')),
        hint = 'See "coordinator job questions".';
    elsif v_step.result -> 'answer' <> p_value or v_step.actor <> v_actor then
      raise exception using errcode = 'ZC330',
        message = format('question "%s" of job %s is over: %s', v_step.name, p_job,
                         case when v_step.result ->> 'by' is null then 'nobody answered in time'
                              else format('"%s" answered %s', v_step.actor, left(v_step.result ->> 'answer', 200)) end),
        detail = jsonb_build_object('job', p_job, 'step', v_step.name, 'ordinal', v_step.ordinal, 'answer', v_step.result -> 'answer',
                                    'by', v_step.result -> 'by', 'answered_at', v_step.finished_at)::text,
        hint = 'An answer is final.';
    end if;
    return next v_step;
    return;
  end if;
  if v_wait.worker = v_actor then
    raise exception using errcode = 'insufficient_privilege', message = format('"%s" asked this question, and may not answer it', v_actor),
      hint = 'Let another manager answer.';
  end if;
  perform coordinator.job_answer_check('the answer', p_value, v_wait.options);
  perform coordinator.job_step_store(p_job, v_wait.name, v_wait.ordinal, 'answer',
    jsonb_build_object('answer', p_value, 'by', v_actor) || case when p_reason is null then '{}' else jsonb_build_object('reason', p_reason) end,
    v_wait.fence, v_actor, v_now);
  perform coordinator.job_wake(array[p_job], v_actor, v_now);
  perform coordinator.job_tell('job.answered', v_project, p_project, j.queue, v_actor, v_now, array[p_job], jsonb_build_object('step', v_wait.name))
  from coordinator.jobs_open j where j.id = p_job;
  select * into v_step from coordinator.job_step_of(p_job, v_wait.name, v_wait.ordinal);
  v_step.project := p_project;
  return next v_step;
end
$$;
comment on function coordinator.job_answer(text, uuid, jsonb, text, text, integer, text) is
  'Answer the question of a job; the job is then queued again. p_step, p_ordinal: only if the job asks this question. Repeating the answer as the same actor changes nothing. ZC213: the job asks nothing. ZC330: the question is over. 42501: the agent that asked may not answer. ZC105: the answer is not one of the options.';

create or replace function coordinator.job_questions(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.job_questions
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{id}');
  return query
    select w.job_id, w.name, w.ordinal, w.question, w.options, w.fallback, w.worker, w.began_at, w.due_at, j.type, j.queue, p_project
    from coordinator.job_waits w join coordinator.jobs_open j on j.id = w.job_id
    where w.project_id = v_project and w.question is not null
      and w.job_id > coalesce(p_after[1]::uuid, '00000000-0000-0000-0000-000000000000')
    order by w.job_id limit p_limit;
end
$$;
comment on function coordinator.job_questions(text, text[], integer) is
  'List the job questions that wait for an answer, in the order of the jobs. p_after: array[job] of the last row read.';
