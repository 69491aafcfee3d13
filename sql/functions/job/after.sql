-- Jobs that start after others (see job.sql).
--
-- A job with `after` waits (cause: jobs) and has a row in job_dependencies for each job that it still waits for. The end of that job
-- looks for such rows only if the job is marked as awaited, so an ordinary job pays nothing for this.
--
-- No wake-up is lost. An enqueue keeps the rows of the jobs that it names in jobs_open (for key share) to its commit, marks them, and
-- then looks again at which have ended; an end deletes that row, so it waits for the enqueue, and looks for dependants afterwards. Two
-- ends that one job waits for lock its row in jobs_waiting before they look at what it still waits for: the second one wakes it.

create or replace function coordinator.job_keep(p_project_id bigint, p_ids uuid[], p_awaited uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  perform from coordinator.jobs_open j where j.id = any (p_ids || p_awaited) and j.project_id = p_project_id order by j.id for key share;
  perform from coordinator.jobs_open j
  where j.id = any (p_awaited) and j.project_id = p_project_id and not j.awaited order by j.id for no key update;
  update coordinator.jobs_open j set awaited = true where j.id = any (p_awaited) and j.project_id = p_project_id and not j.awaited;
end
$$;
comment on function coordinator.job_keep(bigint, uuid[], uuid[]) is
  'Keep open jobs from ending before the end of the transaction, and mark those that others will wait for. No event. Internal.';

create or replace function coordinator.job_settle(p_ids uuid[], p_completed boolean, p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_waiting uuid[];
begin
  perform coordinator.check_isolation('jobs that others wait for end');
  v_waiting := array(
    select w.id from coordinator.jobs_waiting w
    where w.id = any (array(select d.job_id from coordinator.job_dependencies d where d.after_id = any (p_ids))) order by w.id for update);
  delete from coordinator.job_dependencies d where d.after_id = any (p_ids);
  if not p_completed then
    delete from coordinator.jobs_waiting w where w.id = any (v_waiting);
    perform coordinator.job_end(v_waiting, 'cancelled', 'dependency', 'a job that it waited for did not complete', p_by, p_now);
  else
    perform coordinator.job_wake(array(
      select u.id from unnest(v_waiting) u (id) where not exists (select from coordinator.job_dependencies d where d.job_id = u.id)), p_by, p_now);
  end if;
end
$$;
comment on function coordinator.job_settle(uuid[], boolean, text, timestamptz) is
  'Tell jobs that wait for jobs that have ended: wake those that wait for nothing else, or cancel them if those did not complete. Internal.';
