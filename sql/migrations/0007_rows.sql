-- Functions return the row of their noun: a view, or one of these types. What returned lists of columns is dropped here, and so are
-- the views whose columns moved: the function files create their successors.

create type coordinator.lock_grant as (
  resource      text,
  mode          text,
  slot          integer,
  fencing_token bigint,
  acquired_at   timestamptz,
  expires_at    timestamptz,
  ticket        bigint,
  granted       boolean
);
comment on type coordinator.lock_grant is
  'What a request has for one resource: the lock, or, while not granted, a place in the queue until expires_at.';

create type coordinator.token as (
  id           bigint,
  name         text,
  role         text,
  project      text,
  prefix       text,
  actor        text,
  created_at   timestamptz,
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz
);
comment on type coordinator.token is
  'A token without the hash of its secret; project null: all projects. A type and not a view, since only administrators may read tokens.';

drop view if exists coordinator.file_locks, coordinator.lock_holders, coordinator.lock_waiters, coordinator.agents_live,
  coordinator.directives_pending;

drop function if exists coordinator.agent_list(text, text, text[], integer);
drop function if exists coordinator.agent_register(text, text, text, text[], jsonb, interval, integer);
drop function if exists coordinator.directive_acknowledge(text, bigint, text, text, text);
drop function if exists coordinator.directive_inbox(text, text, text[], integer);
drop function if exists coordinator.directive_list(text, boolean, text[], integer);
drop function if exists coordinator.directive_pending(text, bigint, text[], integer);
drop function if exists coordinator.directive_send(text, text, text, text, boolean, integer, interval, text, jsonb, text);
drop function if exists coordinator.lock_acquire(text, text[], uuid, boolean, integer, interval, interval, interval, uuid);
drop function if exists coordinator.lock_acquire_any(text, text[], uuid, boolean, integer, interval, interval, interval, uuid);
drop function if exists coordinator.lock_list(text, text, uuid, text[], integer);
drop function if exists coordinator.lock_poll(text, bigint, uuid);
drop function if exists coordinator.lock_show(text, text);
drop function if exists coordinator.lock_ticket(bigint, bigint, uuid);
drop function if exists coordinator.lock_waiting(text, text, text[], integer);
drop function if exists coordinator.project_create(text, text, text);
drop function if exists coordinator.project_list(text[], integer);
drop function if exists coordinator.rule_list(text, text[], integer);
drop function if exists coordinator.rule_set(text, text, text[], boolean, text);
drop function if exists coordinator.signal_get(text, text);
drop function if exists coordinator.signal_list(text, text, text[], integer);
drop function if exists coordinator.signal_set(text, text, jsonb, interval, boolean, bigint, uuid, boolean, text);
drop function if exists coordinator.token_authenticate(text);
drop function if exists coordinator.token_create(text, text, text, text, text, interval, text);
drop function if exists coordinator.token_list(text[], integer);
