-- What "coordinator doctor" examines in the database.

create table coordinator.checks (
  ordinal  bigint generated always as identity,
  name     text             collate "C" not null,
  warning  double precision,
  critical double precision,
  unit     text             not null,
  fix      text,
  meaning  text             not null,
  constraint checks_pkey primary key (name)
);
comment on table  coordinator.checks          is 'What doctor_run examines. The files of sql/functions/doctor insert the rows; doctor_<name> is the function that looks.';
comment on column coordinator.checks.ordinal  is 'Order of declaration, in which they are examined.';
comment on column coordinator.checks.name     is 'Name of the check.';
comment on column coordinator.checks.warning  is 'From this value on, a finding is a warning; null: the check has no threshold.';
comment on column coordinator.checks.critical is 'From this value on, a finding is critical; less than warning where small values are bad.';
comment on column coordinator.checks.unit     is 'Unit of the thresholds; empty for plain numbers.';
comment on column coordinator.checks.fix      is 'What doctor_fix does about it; null: nothing that is sure to destroy nothing.';
comment on column coordinator.checks.meaning  is 'What is examined.';
