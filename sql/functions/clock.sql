-- The one clock. Tests replace this function with one that reads coordinator.fake_now; the product's must not do so, since
-- anyone who moves the clock could take over locks of others.

insert into coordinator.rights (function, role) values
  ('now_utc', 'reader');

create or replace function coordinator.now_utc() returns timestamptz
language sql volatile parallel safe
return clock_timestamp();
comment on function coordinator.now_utc() is
  'Return the database clock. All functions of this schema read the time here.';
