-- Limits of running jobs. There are three kinds: slots (a number of jobs at once), rate (tokens per interval) and budget (a sum per
-- period). A limit applies to the jobs of a queue, of a type, or of both, and to the jobs that name it; or to a tree of jobs (tree.sql).
--
-- Guarantees
--   In no snapshot do more jobs run than a limit has slots, except for jobs that already ran when it was set or lowered. Counts cannot
--   drift: a slot is a row in job_slots while it is free, and a running attempt otherwise, so the two always add up to the slots of the limit.
--   The end of an attempt returns its slots in the same transaction. If somebody may lack a freed slot, that transaction emits
--   limit.freed, which wakes workers.
--
-- How it works. A class stores the limits of its jobs (limit_ids), so a class without limits costs a claim nothing. A claim takes
-- permits before it takes jobs, and skips permits that other transactions have locked. Claims share the key
-- coordinator.job_limits:<project>, and changes of limits take it exclusively, so a limit does not change during a claim. New classes
-- are created under the key coordinator.job_classes:<project>, so that they include every limit.

insert into coordinator.event_types (type, key, data, meaning) values
  ('limit.set',     'name of the limit', '{kind,queue,type,per_key,tree,slots,rate,per_s,burst,budget,period,reserve,on_exhausted}', 'A limit was created or changed.'),
  ('limit.deleted', 'name of the limit', '{}', 'A limit was deleted. Jobs that name it run without it.'),
  ('limit.freed',   'name of the limit', '{}', 'A limit that a claim lacked is available again. Workers wake up.');

insert into coordinator.rights (function, role) values
  ('limit_list',   'reader'),
  ('limit_show',   'reader'),
  ('limit_delete', 'manager'),
  ('limit_set',    'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_limits',        1000,             'limits',     'Job limits per project.'),
  ('job_limits_asked',  16,               'limits',     'Limits that a job names.'),
  ('job_limit_name',    100,              'characters', 'Name of a job limit.'),
  ('job_limit_slots',   100000,           'slots',      'Slots per limit.'),
  ('job_limit_tokens',  1000000000,       'tokens',     'Rate and burst of a limit.'),
  ('job_limit_budget',  1000000000000000, '',           'Budget of a limit, in units of your choice.');

create or replace function coordinator.limit_key(p_project_id bigint) returns bigint
language sql immutable parallel safe
return hashtextextended('coordinator.job_limits:' || p_project_id::text, 0);
comment on function coordinator.limit_key(bigint) is
  'Return the key of the advisory lock of the limits of a project. Internal.';

create or replace function coordinator.limit_class_key(p_project_id bigint) returns bigint
language sql immutable parallel safe
return hashtextextended('coordinator.job_classes:' || p_project_id::text, 0);
comment on function coordinator.limit_class_key(bigint) is
  'Return the key of the advisory lock under which classes of a project are created. Internal.';

create or replace function coordinator.limit_ids(p_project_id bigint, p_queue text, p_type text, p_limits text[]) returns bigint[]
language sql stable
set search_path = pg_catalog, pg_temp
return array(
  select l.id from coordinator.job_limits l
  where l.project_id = p_project_id and l.tree is null
    and (l.name = any (p_limits) or num_nonnulls(l.queue, l.type) > 0
                                    and coalesce(l.queue = p_queue, true) and coalesce(l.type = p_type, true))
  order by l.id);
comment on function coordinator.limit_ids(bigint, text, text, text[]) is
  'Return the limits that apply to the jobs of a class. Internal.';

create or replace function coordinator.limit_missing(p_project text, p_name text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC211', p_project, 'limit', p_name, array(
    select l.name from coordinator.job_limits l where l.project_id = coordinator.project_id(p_project) order by l.name limit 1000))
$$;
comment on function coordinator.limit_missing(text, text) is
  'Raise ZC211 for a limit that does not exist, with the name that was probably meant. Internal.';
