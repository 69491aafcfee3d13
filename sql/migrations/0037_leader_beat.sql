-- When the leader last renewed its lead: on a replica, up to when it has replayed, by the clock of the primary.
alter table coordinator.leaders add column renewed_at timestamptz;
comment on column coordinator.leaders.renewed_at is 'When the leader last renewed its lead, once a second (server clock). On a standby it shows how old the data is: see leader_beat.';
