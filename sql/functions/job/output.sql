-- Output of jobs (see job.sql): data that a worker publishes before the job ends, such as the text of a model as it is generated.
--
-- Chunks are numbered from 1 without gaps, across all attempts. Each says which attempt wrote it, so a reader can drop what a lost
-- attempt has written. Readers continue after a number, and are woken by job.output, which says up to which number there is output. The
-- last row of the output of an ended job is its status, so a reader knows that nothing follows.

insert into coordinator.event_types (type, key, data, meaning) values
  ('job.output', 'id of the job', '{ids,last,attempt}', 'A worker wrote output; last: the number of the newest chunk.');

insert into coordinator.rights (function, role) values
  ('job_output', 'reader'),
  ('job_write',  'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_chunks_call',  1000,    'chunks', 'Chunks written per call.'),
  ('job_chunks',       20000,   'chunks', 'Output chunks per job.'),
  ('job_output_bytes', 4194304, 'bytes',  'Total output per job, as text.');

create or replace function coordinator.job_write(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_chunks jsonb, p_seq bigint default null)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  v_now     timestamptz := coordinator.now_utc();
  v_last    coordinator.job_chunks_open;
  v_skip    bigint;
  v_count   bigint;
  v_bytes   bigint;
  v_fault   text;
begin
  if p_chunks is null or jsonb_typeof(p_chunks) <> 'array' then
    raise exception using errcode = 'ZC103', message = 'the chunks are not a list', hint = 'Give an array of JSON values.';
  elsif jsonb_array_length(p_chunks) > 1000 then
    raise exception using errcode = 'ZC102', message = format('%s chunks in one call', jsonb_array_length(p_chunks)), hint = 'Give at most 1000.';
  end if;
  select coordinator.json_fault(c) into v_fault from jsonb_array_elements(p_chunks) c
  where case when pg_column_size(c) < 130 then octet_length(c::text) >= 130 else true end and coordinator.json_fault(c) is not null limit 1;
  perform coordinator.json_refuse('a chunk', v_fault);
  select * into v_last from coordinator.job_chunks_open c where c.job_id = p_job order by c.seq desc limit 1;
  v_last.seq := coalesce(v_last.seq, 0);
  if p_seq is not null and p_seq not between 1 and v_last.seq + 1 then
    raise exception using errcode = 'ZC104', message = format('chunk %s does not follow chunk %s', p_seq, v_last.seq),
      detail = jsonb_build_object('last', v_last.seq)::text, hint = format('The next chunk is %s; omit the number to append.', v_last.seq + 1);
  end if;
  v_skip := v_last.seq + 1 - coalesce(p_seq, v_last.seq + 1); -- chunks that an earlier call wrote, whose response was lost
  v_count := jsonb_array_length(p_chunks) - v_skip;
  if v_count <= 0 then
    return v_last.seq;
  end if;
  select coalesce(v_last.bytes, 0) + sum(octet_length(c::text)) into v_bytes
  from jsonb_array_elements(p_chunks) with ordinality u (c, place) where place > v_skip;
  if v_last.seq + v_count > 20000 or v_bytes > 4194304 then
    raise exception using errcode = 'ZC102',
      message = format('the output of job %s would have %s chunks and %s bytes as text; at most 20000 and 4194304 are allowed', p_job, v_last.seq + v_count, v_bytes),
      hint = 'Write larger chunks, or store the output elsewhere and write its location.';
  end if;
  insert into coordinator.job_chunks_open (job_id, seq, attempt, chunk, written_at, bytes)
  select p_job, v_last.seq + place - v_skip, v_attempt.attempt, c, v_now, coalesce(v_last.bytes, 0) + sum(octet_length(c::text)) over (order by place)
  from jsonb_array_elements(p_chunks) with ordinality u (c, place) where place > v_skip;
  update coordinator.jobs_running r
  set progress_at = v_now, stall_at = v_now + (select j.stall from coordinator.jobs_open j where j.id = p_job) where r.id = p_job;
  perform coordinator.event_append('job.output', p_project, p_job::text, coordinator.job_worker(p_agent), v_now,
                                   jsonb_build_object('ids', array[p_job], 'last', v_last.seq + v_count, 'attempt', v_attempt.attempt));
  return v_last.seq + v_count;
end
$$;
comment on function coordinator.job_write(text, uuid, uuid, bigint, jsonb, bigint) is
  'Append an array of chunks to the output of a job; return the number of the last chunk. p_seq: the number of the first chunk; existing chunks are not written again, so a call whose response was lost can be repeated. The call counts as progress. ZC320: the fence is stale.';

create or replace function coordinator.job_output(p_project text, p_job uuid, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.job_chunk
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_after   bigint;
  v_job     record;
  v_count   bigint;
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  v_after := coalesce(p_after[1]::bigint, 0);
  select f.ended_at, f.status into v_job from coordinator.job_find(v_project, p_job) f;
  if v_job.ended_at is null then
    return query
      select c.seq::bigint, c.attempt::integer, c.chunk, c.written_at, null::text
      from coordinator.job_chunks_open c where c.job_id = p_job and c.seq > v_after order by c.seq limit p_limit;
  else
    return query
      select c.seq::bigint, c.attempt, coalesce(c.chunk, case when c.status is null then 'null'::jsonb end), c.written_at, c.status
      from (select c.*, null::text as status from coordinator.jobs_ended j cross join lateral jsonb_to_recordset(j.chunks)
              as c (seq integer, attempt integer, chunk jsonb, written_at timestamptz)
            where j.project_id = v_project and j.id = p_job
            union all
            select coalesce(jsonb_array_length(j.chunks), 0) + 1, j.attempts, null, j.completed_at, j.status
            from coordinator.jobs_ended j where j.project_id = v_project and j.id = p_job) c
      where c.seq > v_after order by c.seq limit p_limit;
  end if;
end
$$;
comment on function coordinator.job_output(text, uuid, text[], integer) is
  'List the output of a job. The last row of an ended job has its status instead of a chunk. p_after: array[seq] of the last row read. ZC209: there is no such job.';
