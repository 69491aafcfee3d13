-- How large the database, its tables and its projects were, day by day: from these the doctor says how fast they grow.

create table coordinator.sizes (
  day         date        not null,
  kind        text        collate "C" not null,
  name        text        collate "C" not null,
  bytes       bigint      not null,
  measured_at timestamptz not null,
  constraint sizes_pkey primary key (day, kind, name),
  constraint sizes_kind check (kind in ('database', 'table', 'project', 'limit'))
);
comment on table  coordinator.sizes             is 'Sizes of the last 60 days on which they were measured. Written by server_measure: the row of a day is its last measurement.';
comment on column coordinator.sizes.day         is 'The day, in UTC (database clock).';
comment on column coordinator.sizes.kind        is 'database; table, with its partitions; project; or limit, the maximum size of the database.';
comment on column coordinator.sizes.name        is 'Name of the table or project; empty for the database and its limit.';
comment on column coordinator.sizes.bytes       is 'Size with indexes; of a project, an estimate. Tables and projects below 1 MB, and projects beyond the 50 largest, have no row.';
comment on column coordinator.sizes.measured_at is 'When it was measured (database clock).';

-- The number of pages that a sample reads is a parameter now.
drop function if exists coordinator.metric_share(regclass);
