-- Locks as parts of a transaction: what they protect is written, and they are released, in one step. Acquiring is not a part, because it
-- would hold other locks while it waits for its turn. Renewing is not a part either: a lease must not depend on the success of its work.

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('assert_fence', 'condition', 'lock_enter_parts'),
  ('lock_release', 'write',     'lock_enter_parts');

create or replace function coordinator.lock_enter_parts(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_released text[] := array(select jsonb_array_elements_text(p -> 'resources') from jsonb_array_elements(p_parts) p
                             where jsonb_typeof(p -> 'resources') = 'array');
begin
  if v_released <> '{}' then
    perform coordinator.lock_enter(p_project_id, coordinator.lock_parse_all(v_released));
    if exists (select from coordinator.lock_waits w where w.project_id = p_project_id) then
      perform coordinator.lock_queue_enter(p_project_id); -- before the rows: a transaction that hands a lock on holds the queue and waits for rows
    end if;
  end if;
  perform from coordinator.locks l
  where l.project_id = p_project_id and l.expires_at > coordinator.now_utc()
    and l.resource in (select (coordinator.lock_parse(p ->> 'resource')).resource from jsonb_array_elements(p_parts) p
                       where p ->> 'resource' is not null)
  order by l.resource, l.slot for key share;
end
$$;
comment on function coordinator.lock_enter_parts(bigint, jsonb) is
  'Take the locks of all parts of a transaction that concern locks: the keys of those released, the queue if anybody waits, then the rows of those asserted. Internal.';
