-- Attempts of webhooks are bounded by bytes, in slots, and their outcomes are stored many at once.

alter table coordinator.webhooks
  add column slots  integer not null default 1,
  add column holder uuid,
  drop column handed;
comment on column coordinator.webhooks.slots  is 'How many of the slots of a daemon its next delivery takes, or while it is claimed, the claim.';
comment on column coordinator.webhooks.holder is 'Who has the newest claim: a random number of a daemon.';
update coordinator.webhooks set slots = 8 where waiting_bytes > 131072;
create index webhooks_claimed_idx on coordinator.webhooks (project_id) where claimed_until is not null; -- webhook_claim
alter type coordinator.webhook_work add attribute slots integer;

drop function if exists coordinator.webhook_claim(integer, integer, interval);
drop function if exists coordinator.webhook_finish(bigint, bigint, bigint, double precision, integer, text, interval, boolean, interval);
drop function if exists coordinator.webhook_next(bigint, timestamptz);
drop function if exists coordinator.webhook_put(coordinator.event_chunks, bigint[], bigint, bigint, timestamptz);
drop function if exists coordinator.webhook_queue(bigint, text, text, text, timestamptz, text, timestamptz, boolean);
drop function if exists coordinator.webhook_row(bigint);
