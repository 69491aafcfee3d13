-- Notifications that carry only the head of the log; relay_configure became event_configure.

drop function if exists coordinator.relay_configure(text);

alter table coordinator.relay drop constraint relay_payloads;
alter table coordinator.relay add constraint relay_payloads check (payloads in ('full', 'pointer', 'head'));
comment on column coordinator.relay.payloads is 'What NOTIFY carries: full (the event), pointer (only its cursor and type) or head (only the cursor of the newest event). Any role that may connect can LISTEN. Written by event_configure.';
