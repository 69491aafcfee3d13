-- The catalogue: event types, rights, limits and verbs of transactions, which each noun's own function file declares.

create table coordinator.event_types (
  ordinal bigint generated always as identity,
  type    text   collate "C" not null,
  key     text   not null,
  data    text[] not null,
  meaning text   not null,
  constraint event_types_pkey primary key (type)
);
comment on table  coordinator.event_types         is 'Every type of event. Types and payloads are API. Each noun''s function file inserts its own rows; tests compare them with the functions.';
comment on column coordinator.event_types.ordinal is 'Order of declaration: by noun, then as the noun''s file lists them.';
comment on column coordinator.event_types.type    is 'Noun and past participle; a reader''s topic is a type or a pattern such as signal.*';
comment on column coordinator.event_types.key     is 'What the event''s key names.';
comment on column coordinator.event_types.data    is 'Names in the event''s data.';
comment on column coordinator.event_types.meaning is 'What happened.';

create table coordinator.rights (
  ordinal  bigint generated always as identity,
  function text   collate "C" not null,
  role     text   not null,
  constraint rights_pkey primary key (function),
  constraint rights_role check (role in ('reader', 'agent', 'manager', 'admin'))
);
comment on table  coordinator.rights          is 'The least role that may call a function. Functions not listed are internal: only coordinator_admin and the daemon call them. Each noun''s function file inserts its own rows.';
comment on column coordinator.rights.ordinal  is 'Order of declaration: by noun, then as the noun''s file lists them.';
comment on column coordinator.rights.function is 'Name of a function of this schema.';
comment on column coordinator.rights.role     is 'reader, agent, manager or admin; each includes the ones before it.';

create table coordinator.limits (
  ordinal bigint  generated always as identity,
  name    text    collate "C" not null,
  value   bigint  not null,
  unit    text    not null,
  meaning text    not null,
  constraint limits_pkey primary key (name)
);
comment on table  coordinator.limits         is 'What the functions accept. Each noun''s function file inserts its own rows; a test tries each limit on the functions.';
comment on column coordinator.limits.ordinal is 'Order of declaration: by noun, then as the noun''s file lists them.';
comment on column coordinator.limits.name    is 'What is limited.';
comment on column coordinator.limits.value   is 'The largest value accepted; for ttl_min, the smallest.';
comment on column coordinator.limits.unit    is 'Unit of value; empty for plain numbers.';
comment on column coordinator.limits.meaning is 'Where the limit applies.';

create table coordinator.transaction_verbs (
  ordinal    bigint generated always as identity,
  function   text   collate "C" not null,
  part       text   not null,
  entered_by text   collate "C",
  keyed_by   text   collate "C",
  constraint transaction_verbs_pkey primary key (function),
  constraint transaction_verbs_part check (part in ('condition', 'write'))
);
comment on table  coordinator.transaction_verbs            is 'The functions that may be part of a transaction: those that never wait for anything but another transaction''s end. Each noun''s function file inserts its own rows.';
comment on column coordinator.transaction_verbs.ordinal    is 'Order of declaration: by noun, which is the order in which their locks are taken. A noun with keyed_by takes those of another.';
comment on column coordinator.transaction_verbs.function   is 'Name of a function of this schema; its first parameter is p_project.';
comment on column coordinator.transaction_verbs.part       is 'condition: the function raises an error unless something holds, and keeps it so until the transaction ends; write: it changes something.';
comment on column coordinator.transaction_verbs.entered_by is 'Name of the internal function (project number, parts) that takes the locks of all parts that name it, in an order of its own; null if the function locks nothing.';
comment on column coordinator.transaction_verbs.keyed_by   is 'Name of the internal function (project, parameters) that returns the parameters with the kind and key of each log or document that the function writes; null where these are parameters, and where it writes none.';

create type coordinator.transaction_outcome as (
  write  integer,
  verb   text,
  result jsonb
);
comment on type coordinator.transaction_outcome is
  'A row that a write of a transaction returned: the write''s place in the list, from 0; its verb; the row as an object, a single value, or null.';
