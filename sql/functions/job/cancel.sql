-- Cancelling jobs (see job.sql). A waiting job ends at once. The worker of a running job is asked to stop: it learns of the request
-- from the event, from job_progress and from job_reconcile. Whatever the worker reports afterwards, the job ends as "cancelled". If it
-- reports nothing within the grace time, the loop ends the job. Trees: see tree.sql.

create or replace function coordinator.job_cancel(p_project text, p_job uuid, p_reason text default null, p_tree boolean default false, p_actor text default null)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_job     record;
  v_done    record;
begin
  perform coordinator.check_reason(p_reason);
  if p_tree then
    perform coordinator.job_find(v_project, p_job);
    v_done := coordinator.job_cancel_tree(v_project, array[p_job], p_reason, v_actor, v_now);
    if v_done.cancelled + v_done.following > 0 then
      return query select o.id, o.status, o.reason, o.due_at, v_done.following, v_done.cancelled from coordinator.job_outcome_of(v_project, p_job) o;
      return;
    end if;
  end if;
  for v_try in 1..100 loop -- a job may move between tables while this searches them
    select f.* into v_job from coordinator.job_find(v_project, p_job) f;
    if v_job.ended_at is not null then
      raise exception using errcode = 'ZC323', message = format('job %s has ended: it is %s', p_job, v_job.status),
        detail = jsonb_build_object('job', p_job, 'status', v_job.status, 'reason', v_job.reason, 'ended_at', v_job.ended_at)::text,
        hint = 'Nothing is left to cancel.';
    elsif v_job.status = 'running' then
      update coordinator.jobs_running r
      set cancel_at = coalesce(r.cancel_at, v_now + interval '30 seconds'), cancelled_by = coalesce(r.cancelled_by, v_actor),
          cancel_reason = coalesce(r.cancel_reason, p_reason)
      where r.id = p_job;
      if found then
        perform coordinator.job_tell('job.cancel_requested', v_project, p_project, v_job.queue, v_actor, v_now, array[p_job],
                                     jsonb_build_object('reason', p_reason));
        exit;
      end if;
    elsif coordinator.job_take(p_job, true) then
      perform coordinator.job_end(array[p_job], 'cancelled', 'cancelled', p_reason, v_actor, v_now);
      return query select p_job, 'cancelled', 'cancelled', null::timestamptz, 0, 1; -- the history does not need to be read
      return;
    end if;
    if v_try = 100 then
      raise exception using errcode = 'lock_not_available', message = format('other calls keep changing job %s', p_job), hint = 'Try again.';
    end if;
  end loop;
  return query select o.id, o.status, o.reason, o.due_at, 0, 1 from coordinator.job_outcome_of(v_project, p_job) o;
end
$$;
comment on function coordinator.job_cancel(text, uuid, text, boolean, text) is
  'Cancel a job. A waiting job ends immediately; the worker of a running job is asked to stop, and its fence is revoked after 30 seconds (due_at). p_tree: also cancel all jobs below it, even if the job itself has ended: up to 1,000 now, the oldest first, and the rest soon after (following). Until then, none of them is claimed or gets children. cancelled: how many jobs this call cancelled. Jobs that wait for it follow their on_failure. ZC323: the job has ended.';
