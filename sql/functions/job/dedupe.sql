-- Dedupe keys of jobs (see job.sql). A row of job_dedupes says which job holds a key: until the end of the window or, without a window,
-- until the job ends. A job that does not complete releases its key at its end, unless the caller chose otherwise. A retried attempt
-- belongs to the same job, so it never conflicts with the key.
--
-- The transaction that inserts the row holds the key; others that insert the same key wait until it ends. Rows of existing jobs are
-- only read. To replace a job, a transaction locks its row in jobs_ready or jobs_later before its key, as every end of a job does.

create or replace function coordinator.job_refuse_duplicate(
  p_project_id bigint, p_order coordinator.job_order, p_job uuid, p_same_call boolean) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job record;
begin
  if p_same_call then
    raise exception using errcode = 'ZC321', message = format('two jobs of the call have the dedupe key "%s"', p_order.dedupe_key),
      hint = 'Omit one of them, use another key, or set on_duplicate to skip.';
  end if;
  select * into v_job from coordinator.job_find(p_project_id, p_job);
  raise exception using errcode = 'ZC321',
    message = format('job %s (%s) holds the dedupe key "%s"', p_job, v_job.status, p_order.dedupe_key),
    detail = jsonb_build_object('job', p_job, 'status', v_job.status, 'dedupe_key', p_order.dedupe_key)::text,
    hint = case when v_job.ended_at is not null then 'It holds the key until its window ends. Use another key, or enqueue with on_duplicate "skip" to get its id.'
           when p_order.on_duplicate = 'replace' then 'Only a job that waits can be replaced; wait for its end, or cancel it.'
           else 'Wait for that job, or enqueue with on_duplicate "skip" to get its id.' end;
end
$$;
comment on function coordinator.job_refuse_duplicate(bigint, coordinator.job_order, uuid, boolean) is
  'Raise ZC321 with the job that holds a dedupe key. Internal.';

create or replace function coordinator.job_dedupe(
  p_project_id bigint, p_project text, p_orders coordinator.job_order[], p_ids uuid[], p_actor text, p_now timestamptz) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_first  uuid[] := '{}';
  v_mine   uuid[];
  v_order  coordinator.job_order;
  v_answer record;
begin
  v_first[cardinality(p_ids)] := null;
  with mine as (
    insert into coordinator.job_dedupes (project_id, key, job_id, expires_at, failed)
    select p_project_id, k.dedupe_key, p_ids[k.place], p_now + k.dedupe_for, k.dedupe_failed
    from (select distinct on (o.dedupe_key) o.* from unnest(p_orders) o where o.dedupe_key is not null order by o.dedupe_key, o.place) k
    order by k.dedupe_key on conflict on constraint job_dedupes_pkey do nothing returning job_id)
  select array_agg(m.job_id) into v_mine from mine m;

  for v_order in
    select o.* from unnest(p_orders) o where o.dedupe_key is not null and (p_ids[o.place] = any (v_mine)) is not true
    order by o.dedupe_key, o.place
  loop
    loop
      select d.job_id, d.expires_at <= p_now as over into v_answer from coordinator.job_dedupes d
      where d.project_id = p_project_id and d.key = v_order.dedupe_key;
      if not found then -- it has just ended
        insert into coordinator.job_dedupes (project_id, key, job_id, expires_at, failed)
        values (p_project_id, v_order.dedupe_key, p_ids[v_order.place], p_now + v_order.dedupe_for, v_order.dedupe_failed)
        on conflict on constraint job_dedupes_pkey do nothing;
        exit when found;
      elsif v_answer.over then
        delete from coordinator.job_dedupes d
        where d.project_id = p_project_id and d.key = v_order.dedupe_key and d.job_id = v_answer.job_id;
      elsif v_order.on_duplicate = 'skip' then
        v_first[v_order.place] := v_answer.job_id;
        exit;
      elsif v_order.on_duplicate = 'replace' and v_answer.job_id <> all (p_ids) and coordinator.job_take(v_answer.job_id, true) then
        perform coordinator.job_end(array[v_answer.job_id], 'cancelled', 'replaced', null, p_actor, p_now);
        delete from coordinator.job_dedupes d
        where d.project_id = p_project_id and d.key = v_order.dedupe_key and d.job_id = v_answer.job_id;
      elsif exists (select from coordinator.job_dedupes d
                    where d.project_id = p_project_id and d.key = v_order.dedupe_key and d.job_id = v_answer.job_id) then
        perform coordinator.job_refuse_duplicate(p_project_id, v_order, v_answer.job_id, v_answer.job_id = any (p_ids));
      end if;
    end loop;
  end loop;
  return v_first;
end
$$;
comment on function coordinator.job_dedupe(bigint, text, coordinator.job_order[], uuid[], text, timestamptz) is
  'Return, by the position of each job with a dedupe key, the job that already holds the key; cancel it if the new job replaces it. Internal.';
