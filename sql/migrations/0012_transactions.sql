-- Transactions: several writes in one call, under conditions. Each noun declares which of its functions may be part of one.

create table coordinator.transaction_verbs (
  ordinal    bigint generated always as identity,
  function   text   collate "C" not null,
  part       text   not null,
  entered_by text   collate "C",
  constraint transaction_verbs_pkey primary key (function),
  constraint transaction_verbs_part check (part in ('condition', 'write'))
);
comment on table  coordinator.transaction_verbs            is 'The functions that may be part of a transaction: those that never wait for anything but another transaction''s end. Each noun''s function file inserts its own rows.';
comment on column coordinator.transaction_verbs.ordinal    is 'Order of declaration: by noun, which is the order in which their locks are taken.';
comment on column coordinator.transaction_verbs.function   is 'Name of a function of this schema; its first parameter is p_project.';
comment on column coordinator.transaction_verbs.part       is 'condition: the function raises an error unless something holds, and keeps it so until the transaction ends; write: it changes something.';
comment on column coordinator.transaction_verbs.entered_by is 'Name of the internal function (project number, parts) that takes the locks of all parts that name it, in an order of its own; null if the function locks nothing.';

create type coordinator.transaction_outcome as (
  write  integer,
  verb   text,
  result jsonb
);
comment on type coordinator.transaction_outcome is
  'A row that a write of a transaction returned: the write''s place in the list, from 0; its verb; the row as an object, a single value, or null.';
