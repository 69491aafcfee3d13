-- Transactions: several writes in one call, under conditions; all or none.
--
-- Guarantees
--   Either every condition holds and every write is done, or the call raises an error and nothing changes. Conditions hold when the
--   transaction commits, not only when they are checked: the rows that they assert are locked until then. (Only time can pass: a signal
--   or a lease that expires between the check and the commit counts as valid.) In the log, the events of the writes follow each other
--   directly, in the order of the list.
--   Two transactions never deadlock with each other, whatever the order of their lists, nor does a transaction with a call of any
--   function that may be part of one: all locks are taken before anything is checked or written, in the order of sql/README.md.
--   A part is a call of its public function, with the caller's own rights: it can do nothing that the role may not do alone.
--
-- How it works. A part is a JSON object: the function's name as "verb", and its parameters without p_. transaction_verbs lists the
-- functions that may be parts, the function that takes the locks of each noun, and, if a parameter does not name what a part locks, the
-- function that computes it: a message is an entry of a log, and a memory is a document. transaction_enter checks all parts and takes
-- all locks, with the rights of the schema's owner, and returns the statements; transaction_run runs them, with the rights of its
-- caller.
--
-- Deliberately absent: functions that wait (acquiring a lock), reads, parts in other projects, nested transactions.

insert into coordinator.rights (function, role) values
  ('transaction_enter', 'agent'), -- transaction_run calls it with the rights of its caller
  ('transaction_run',   'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('transaction',       100,     'parts', 'Conditions and writes per transaction.'),
  ('transaction_bytes', 8388608, 'bytes', 'Size of a transaction''s conditions, and of its writes, each as text. The largest log batch fits as JSON text. Over HTTP, http_body_bytes applies first.');

create or replace function coordinator.json_misfit(p_value jsonb, p_type text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_type in ('jsonb', 'json') or v.kind = 'null' then null
    when p_type = 'text' then case when v.kind <> 'string' then 'a text' end
    when p_type = 'boolean' then case when v.kind <> 'boolean' then 'true or false' end
    when p_type in ('integer', 'bigint') then
      case when v.kind <> 'number' or v.text !~ '^-?[0-9]{1,18}$' or p_type = 'integer' and abs(v.text::numeric) > 2147483647
           then 'a whole number' end
    when p_type = 'double precision' then
      case when v.kind <> 'number' or abs(v.text::numeric) > 1e308 then 'a number' end
    when p_type = 'interval' then
      case when v.kind = 'string' and length(v.text) <= 100 or v.kind = 'number' and abs(v.text::numeric) < 1e12 then null
           else 'a duration: a number of seconds, or a text such as "5 minutes"' end
    when p_type = 'timestamp with time zone' then
      case when v.kind <> 'string' or v.text !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+ ?(Z|[+-][0-9:]+)$' then 'an instant such as "2026-01-31T12:00:00Z"' end
    when p_type = 'uuid' then
      case when v.kind <> 'string' or v.text !~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then 'the text of a UUID' end
    when p_type = 'uuid[]' then
      case when v.kind <> 'array' or jsonb_path_exists(p_value,
             'strict $[*] ? (@.type() != "string" || !(@ like_regex "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))')
           then 'a list of texts of UUIDs' end
    when p_type in ('text[]', 'bigint[]', 'double precision[]') then
      case when v.kind <> 'array' or jsonb_path_exists(p_value, case p_type
             when 'text[]' then 'strict $[*] ? (@.type() != "string")'::jsonpath
             when 'double precision[]' then 'strict $[*] ? (@.type() != "number" || @.abs() > 1e308)'::jsonpath
             else 'strict $[*] ? (@.type() != "number" || @.floor() != @ || @.abs() >= 1000000000000000000)'::jsonpath end)
           then case p_type when 'text[]' then 'a list of texts' when 'bigint[]' then 'a list of whole numbers' else 'a list of numbers' end end
    else 'a value of another type'
  end
  from (select jsonb_typeof(p_value) as kind, p_value #>> '{}' as text) v
$$;
comment on function coordinator.json_misfit(jsonb, text) is
  'Return what a JSON value would have to be in order to become a parameter of a type, or null if it fits. Internal.';

create or replace function coordinator.json_argument(p_name text, p_type text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_type = 'jsonb' then format('$2 -> %L', p_name)
    when p_type = 'json' then format('coalesce(($2 ->> %L)::json, ($2 -> %L)::json)', p_name || '_text', p_name)
    when p_type = 'interval' then
      format('case jsonb_typeof($2 -> %1$L) when %2$L then make_interval(secs => ($2 ->> %1$L)::double precision) else ($2 ->> %1$L)::interval end',
             p_name, 'number')
    when p_type like '%[]' then
      format('case jsonb_typeof($2 -> %1$L) when %2$L then array(select jsonb_array_elements_text($2 -> %1$L))::%3$s end', p_name, 'array', p_type)
    else format('($2 ->> %L)::%s', p_name, p_type)
  end
$$;
comment on function coordinator.json_argument(text, text) is
  'Write the expression that takes a parameter from the JSON object $2. Internal.';

create or replace function coordinator.transaction_list(p_what text, p_list jsonb) returns integer
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_list is null or jsonb_typeof(p_list) <> 'array' then
    raise exception using errcode = 'ZC103', message = format('the %ss are not a list', p_what),
      hint = 'Give an array of objects such as {"verb": "signal_set", "key": "build/state", "value": "green"}.';
  end if;
  perform coordinator.json_refuse(format('the list of %ss', p_what), coordinator.json_fault(
    p_list, 8388608, 'strict $.**{66} ? (@.type() == "array" || @.type() == "object")'), 8388608);
  return jsonb_array_length(p_list);
end
$$;
comment on function coordinator.transaction_list(text, jsonb) is
  'Return the length of a list of parts. Reject what is not a list (ZC103), one of more than 8,388,608 bytes (ZC102), and what exceeds another limit of JSON. Internal.';

create or replace function coordinator.transaction_enter_sessions(p_project_id bigint, p_logs jsonb, p_documents jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_session record;
begin
  perform from coordinator.sessions s
  where s.id in (select l.session_id from jsonb_array_elements(p_logs) p
                 join coordinator.logs l on l.project_id = p_project_id and l.kind = p ->> 'kind' and l.key = p ->> 'key'
                 union all
                 select d.session_id from jsonb_array_elements(p_documents) p
                 join coordinator.documents d on d.project_id = p_project_id and d.kind = p ->> 'kind' and d.key = p ->> 'key')
  order by s.id for share;
  -- The function that receives a malformed part rejects it.
  for v_session in
    select coalesce(p.part ->> 'session', p.part ->> 'key') collate "C" as key, min(p.part ->> 'actor') as actor
    from (select e as part, true as of_log from jsonb_array_elements(p_logs) e
          where e ?| '{entries,entries_text,session}'
          union all
          select e, false from jsonb_array_elements(p_documents) e where e ? 'value' or e ? 'value_text') p
    where (p.part ->> 'kind' in ('message', 'step', 'state') or p.part ->> 'session' is not null)
      and length(coalesce(p.part ->> 'session', p.part ->> 'key')) between 1 and 512
      and case when p.of_log then not exists (select from coordinator.logs l
                                           where l.project_id = p_project_id and l.kind = p.part ->> 'kind' and l.key = p.part ->> 'key')
               else not exists (select from coordinator.documents d
                                where d.project_id = p_project_id and d.kind = p.part ->> 'kind' and d.key = p.part ->> 'key') end
      -- In terms of their functions: messages and steps are logs, states are documents.
      and (p.part ->> 'session' is not null or p.of_log = (p.part ->> 'kind' <> 'state'))
    group by 1 order by 1
  loop
    perform coordinator.check_key('the key of the session', v_session.key);
    perform coordinator.session_enter(p_project_id, v_session.key, coordinator.now_utc(), v_session.actor);
  end loop;
end
$$;
comment on function coordinator.transaction_enter_sessions(bigint, jsonb, jsonb) is
  'Share the sessions of all parts of a transaction that concern logs and documents, and make those that a first append or put makes, before any header is locked. Internal.';

create or replace function coordinator.transaction_enter(
  p_project text, p_writes jsonb, p_conditions jsonb default '[]', p_actor text default null)
returns table (part text, place integer, verb text, arguments jsonb, statement text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  v_project bigint := coordinator.project_id(p_project);
  v_count   integer;
  v_given   record;
  v_kind    record;
  v_fields  text[];
  v_field   record;
  v_listed  text;
  v_texts   text[]; -- parameters that are passed as text, so that jsonb does not change them
  v_agents  uuid[] := '{}';
  v_keyed   jsonb;
  v_parts   jsonb := '{}';
  v_enter   text;
begin
  v_count := coordinator.transaction_list('condition', coalesce(p_conditions, '[]')) + coordinator.transaction_list('write', p_writes);
  if jsonb_array_length(p_writes) = 0 then
    raise exception using errcode = 'ZC101', message = 'the transaction writes nothing', hint = 'Give at least one write.';
  elsif v_count > 100 then
    raise exception using errcode = 'ZC102', message = format('the transaction has %s parts; at most 100 are allowed', v_count),
      hint = 'Split it into several transactions.';
  elsif p_actor is not null then
    perform coordinator.check_name('the actor', p_actor);
  end if;

  for v_given in
    select 'condition' as part, c.place, c.value from jsonb_array_elements(p_conditions) with ordinality c (value, place)
    union all
    select 'write', w.place, w.value from jsonb_array_elements(p_writes) with ordinality w (value, place)
    order by 1, 2
  loop
    part := v_given.part;
    place := v_given.place - 1;
    if jsonb_typeof(v_given.value) <> 'object' or coalesce(jsonb_typeof(v_given.value -> 'verb'), '') <> 'string' then
      raise exception using errcode = 'ZC103', message = format('%s %s is not an object with a "verb"', part, place),
        hint = 'Write it like {"verb": "signal_set", "key": "build/state", "value": "green"}.';
    end if;
    verb := v_given.value ->> 'verb';
    arguments := v_given.value - 'verb';
    select p.pronargs, p.pronargdefaults, p.proargnames[1:p.pronargs] as names, p.proargtypes::oid[] as types,
           p.prorettype = 'void'::regtype as void, v.entered_by, v.keyed_by into v_kind
    from coordinator.transaction_verbs v join pg_proc p on p.proname = v.function and p.pronamespace = 'coordinator'::regnamespace
    where v.function = verb and v.part = v_given.part;
    if not found then
      select array_agg(v.function order by v.ordinal) into v_fields from coordinator.transaction_verbs v where v.part = v_given.part;
      raise exception using errcode = 'ZC105', message = format('%s %s: "%s" cannot be a %s of a transaction', part, place, left(verb, 100), part),
        hint = coalesce('Did you mean "' || coordinator.nearest(verb, v_fields) || '"? ', '')
               || format('Use one of %s.', array_to_string(v_fields, ', '));
    end if;
    if p_actor is not null and 'p_actor' = any (v_kind.names) and coalesce(arguments -> 'actor', 'null') = 'null' then
      arguments := arguments || jsonb_build_object('actor', p_actor);
    end if;
    v_fields := array(select substr(n, 3) from unnest(v_kind.names) n where n <> 'p_project');
    v_texts := array(select substr(n, 3) || '_text' from unnest(v_kind.names, v_kind.types) u (n, t) where t = 'json'::regtype);
    v_listed := format('%s has the fields %s.', verb, array_to_string(v_fields, ', '));

    select f into v_field from jsonb_object_keys(arguments) f where f <> all (v_fields || v_texts) limit 1;
    if found then
      raise exception using errcode = 'ZC105',
        message = format('%s %s (%s) has an unknown field "%s"', part, place, verb, left(v_field.f, 100)),
        hint = case when v_field.f = 'project' then 'All parts are in the project of the transaction; omit it. '
                    else coalesce('Did you mean "' || coordinator.nearest(v_field.f, v_fields) || '"? ', '') end || v_listed;
    end if;
    statement := 'p_project => $1';
    for v_field in
      select substr(n, 3) as name, format_type(t, null) as type, o > v_kind.pronargs - v_kind.pronargdefaults as optional,
             arguments -> substr(n, 3) as value
      from unnest(v_kind.names, v_kind.types) with ordinality u (n, t, o) where n <> 'p_project'
    loop
      if v_field.value is null and jsonb_typeof(arguments -> (v_field.name || '_text')) = 'string' then
        v_field.value := arguments -> (v_field.name || '_text');
      end if;
      if v_field.value is null then
        continue when v_field.optional;
        raise exception using errcode = 'ZC101', message = format('%s %s (%s) has no "%s"', part, place, verb, v_field.name), hint = v_listed;
      end if;
      if v_field.name = 'agent' and v_field.type = 'uuid' and jsonb_typeof(v_field.value) = 'string' then
        v_field.value := to_jsonb(coordinator.agent_find(p_project, v_field.value #>> '{}'));
        arguments := arguments || jsonb_build_object('agent', v_field.value);
      end if;
      if coordinator.json_misfit(v_field.value, v_field.type) is not null then
        raise exception using errcode = 'ZC103',
          message = format('"%s" of %s %s (%s) is %s', v_field.name, part, place, verb, left(v_field.value::text, 100)),
          hint = format('Give %s.', coordinator.json_misfit(v_field.value, v_field.type));
      end if;
      statement := statement || format(', %I => %s', 'p_' || v_field.name, coordinator.json_argument(v_field.name, v_field.type));
      if v_field.name = 'agent' and v_field.type = 'uuid' then
        v_agents := v_agents || (v_field.value #>> '{}')::uuid;
      end if;
    end loop;
    statement := format('select %s from coordinator.%I(%s) r', case when v_kind.void then 'null::jsonb' else 'to_jsonb(r)' end, verb, statement);
    if v_kind.entered_by is not null then
      v_keyed := jsonb_build_array(arguments);
      if v_kind.keyed_by is not null then
        execute format('select jsonb_agg(k) from coordinator.%I($1, $2) k', v_kind.keyed_by) into v_keyed using p_project, arguments;
      end if;
      v_parts := jsonb_set(v_parts, array[v_kind.entered_by], coalesce(v_parts -> v_kind.entered_by, '[]') || v_keyed);
    end if;
    return next;
  end loop;

  -- The lock order of sql/README.md: the project and the agents, then what belongs to them, by noun.
  perform from coordinator.projects where id = v_project for key share;
  if v_parts ?| '{log_enter,document_enter}' then
    perform coordinator.transaction_enter_sessions(v_project, coalesce(v_parts -> 'log_enter', '[]'), coalesce(v_parts -> 'document_enter', '[]'));
  end if;
  perform from coordinator.agents where id = any (v_agents) and project_id = v_project order by id for key share;
  for v_enter in
    select v.entered_by from coordinator.transaction_verbs v where v_parts ? v.entered_by group by 1
    order by min(v.ordinal) filter (where v.keyed_by is null)
  loop
    execute format('select coordinator.%I($1, $2)', v_enter) using v_project, v_parts -> v_enter;
  end loop;
end
$$;
comment on function coordinator.transaction_enter(text, jsonb, jsonb, text) is
  'Check the parts of a transaction, take their locks until its end, and return the statement of each, conditions first. Called by transaction_run.';

create or replace function coordinator.transaction_run(
  p_project text, p_writes jsonb, p_conditions jsonb default '[]', p_actor text default null)
returns setof coordinator.transaction_outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_call    record;
  v_part    text;
  v_result  jsonb;
  v_message text;
  v_detail  text;
  v_hint    text;
  v_facts   jsonb;
begin
  for v_call in select * from coordinator.transaction_enter(p_project, p_writes, p_conditions, p_actor) loop
    v_part := format('%s %s (%s)', v_call.part, v_call.place, v_call.verb);
    for v_result in execute v_call.statement using p_project, v_call.arguments loop
      if v_call.part = 'write' then
        return next row(v_call.place, v_call.verb, v_result)::coordinator.transaction_outcome;
      end if;
    end loop;
  end loop;
exception when others then
  get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
  if v_part is null then
    raise;
  end if;
  v_facts := jsonb_build_object(v_call.part, v_call.place);
  if left(v_detail, 1) = '{' then -- functions of the schema write their details as an object
    v_facts := v_facts || v_detail::jsonb;
  end if;
  raise exception using errcode = sqlstate, message = v_part || ': ' || v_message, detail = v_facts::text,
    hint = coalesce(nullif(v_hint, ''), 'Correct this part, or read again and decide again; nothing was changed.');
end
$$;
comment on function coordinator.transaction_run(text, jsonb, jsonb, text) is
  'Run several writes if all conditions hold, all or none. A part is an object with the function as verb, and its parameters without p_ and without the project; see transaction_verbs. A parameter of type json can also be given as text, under its name with _text appended: it is then stored byte for byte. p_actor: the actor of writes that name none. Return the result of each write. If a part fails, its error is raised; the detail has the position of the part from 0, as condition or write.';
