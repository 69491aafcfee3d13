-- One clock for everything that is kept. Tests replace this function by one that reads coordinator.fake_now; the
-- product's must not: whoever moves the clock could take what others hold.

insert into coordinator.rights (function, role) values
  ('now_utc', 'reader');

create or replace function coordinator.now_utc() returns timestamptz
language sql volatile parallel safe
return clock_timestamp();
comment on function coordinator.now_utc() is
  'The database''s clock, as every function of this schema reads it.';
