-- Metrics of the database: declared by the nouns that they measure, and sampled by the leading daemon.

drop function if exists coordinator.gauge_sample();
drop function if exists coordinator.row_count(regclass);

create table coordinator.metrics (
  ordinal bigint generated always as identity,
  name    text   collate "C" not null,
  sampler text   collate "C" not null,
  kind    text   not null,
  labels  text[] not null,
  unit    text   not null,
  meaning text   not null,
  constraint metrics_pkey primary key (name),
  constraint metrics_kind check (kind in ('gauge', 'counter', 'histogram'))
);
comment on table  coordinator.metrics         is 'What the leading daemon samples of the database for its metrics. Each noun''s function file inserts its own rows; a test compares them with what the functions return.';
comment on column coordinator.metrics.ordinal is 'Order of declaration: by noun, then as the noun''s file lists them.';
comment on column coordinator.metrics.name    is 'Name of the metric, as Prometheus sees it.';
comment on column coordinator.metrics.sampler is 'The function that samples it: it returns rows of name, labels and value.';
comment on column coordinator.metrics.kind    is 'gauge; counter: it only grows, until the server starts again; histogram: each row of the function is one observation.';
comment on column coordinator.metrics.labels  is 'Names of its labels, in the order of their values.';
comment on column coordinator.metrics.unit    is 'Unit of its values; empty for plain numbers.';
comment on column coordinator.metrics.meaning is 'What it measures.';
