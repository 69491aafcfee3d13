-- Webhooks: events that the leading daemon sends to URLs.

create table coordinator.webhooks (
  id            bigint      not null generated always as identity constraint webhooks_pkey primary key,
  project_id    bigint      not null constraint webhooks_project_fkey references coordinator.projects on delete cascade,
  url           text        not null,
  topics        text[]      not null,
  pattern       text        not null,
  secret        text        not null,
  secret_before text,
  before_until  timestamptz,
  after_seq     bigint      not null,
  behind        boolean     not null default true,
  waiting       integer     not null default 0,
  waiting_bytes bigint      not null default 0,
  due_at        timestamptz,
  claim         bigint      not null default 0,
  claimed_until timestamptz,
  handed        boolean     not null default false,
  slow          boolean     not null default false,
  failing_since timestamptz,
  error         text,
  delivered_at  timestamptz,
  paused_at     timestamptz,
  paused_by     text,
  pause_reason  text,
  disabled      boolean     not null default false,
  actor         text        not null,
  created_at    timestamptz not null,
  updated_at    timestamptz not null) with (fillfactor = 50);
create index webhooks_project_idx   on coordinator.webhooks (project_id, id); -- webhook_list, webhook_claim; project_delete
create index webhooks_due_idx       on coordinator.webhooks (due_at) where due_at is not null; -- webhook_claim, work_due
create index webhooks_behind_idx    on coordinator.webhooks (after_seq) where behind and paused_at is null and waiting < 100 and waiting_bytes < 1048576; -- webhook_fill, work_due
create index webhooks_following_idx on coordinator.webhooks (after_seq) where not behind; -- webhook_fill, work_due
comment on table  coordinator.webhooks               is 'URLs to which the leading daemon sends events. Readable by the owner and administrators only, because of the secrets.';
comment on column coordinator.webhooks.id            is 'Number of the webhook.';
comment on column coordinator.webhooks.project_id    is 'The project whose events it sends.';
comment on column coordinator.webhooks.url           is 'Where it sends them.';
comment on column coordinator.webhooks.topics        is 'Types of the events, such as lock.broken or signal.*.';
comment on column coordinator.webhooks.pattern       is 'The topics as one regular expression.';
comment on column coordinator.webhooks.secret        is 'The key of its signatures: whsec_ and base64. Shown once, to whoever made it.';
comment on column coordinator.webhooks.secret_before is 'The former secret, which signs as well until before_until.';
comment on column coordinator.webhooks.before_until  is 'Until when the former secret signs.';
comment on column coordinator.webhooks.after_seq     is 'Events up to this one were compared with its topics; while it is not behind, also those up to webhook_log.seq.';
comment on column coordinator.webhooks.behind        is 'True: it reads the log on its own from after_seq on, until it has come to webhook_log.seq.';
comment on column coordinator.webhooks.waiting       is 'Its deliveries that wait.';
comment on column coordinator.webhooks.waiting_bytes is 'Bytes of their bodies.';
comment on column coordinator.webhooks.due_at        is 'When its next delivery is due; while it is claimed, when the claim ends; null: there is none.';
comment on column coordinator.webhooks.claim         is 'Number of its newest claim: who claimed it before changes nothing more.';
comment on column coordinator.webhooks.claimed_until is 'Until when a daemon delivers for it; null: none does.';
comment on column coordinator.webhooks.handed        is 'True: webhook_finish made the claim, for whoever had the one before it.';
comment on column coordinator.webhooks.slow          is 'True: its last attempt failed, or took over a second.';
comment on column coordinator.webhooks.failing_since is 'Since when every attempt has failed; null: the last one succeeded.';
comment on column coordinator.webhooks.error         is 'Why the last attempt failed; null: it succeeded.';
comment on column coordinator.webhooks.delivered_at  is 'When an event was last delivered.';
comment on column coordinator.webhooks.paused_at     is 'When it was paused or disabled; null: it is active.';
comment on column coordinator.webhooks.paused_by     is 'Who paused it.';
comment on column coordinator.webhooks.pause_reason  is 'Why it was paused or disabled.';
comment on column coordinator.webhooks.disabled      is 'True: coordinator paused it, because its receiver is gone or failed for too long.';
comment on column coordinator.webhooks.actor         is 'Who added it.';
comment on column coordinator.webhooks.created_at    is 'When it was added (database clock).';
comment on column coordinator.webhooks.updated_at    is 'When it was last rotated, paused or resumed (database clock).';

create table coordinator.webhook_deliveries (
  id           bigint      not null generated always as identity constraint webhook_deliveries_pkey primary key,
  webhook_id   bigint      not null constraint webhook_deliveries_webhook_fkey references coordinator.webhooks on delete cascade,
  message      text        not null,
  type         text        not null,
  key          text,
  at           timestamptz not null,
  test         boolean     not null default false,
  body         text,
  status       text        not null default 'waiting',
  attempts     integer     not null default 0,
  due_at       timestamptz not null,
  attempted_at timestamptz,
  ended_at     timestamptz,
  response     integer,
  error        text,
  seconds      double precision,
  constraint webhook_deliveries_status check (status in ('waiting', 'delivered', 'dead')));
create index webhook_deliveries_webhook_idx on coordinator.webhook_deliveries (webhook_id, id); -- webhook_deliveries, webhook_prune; webhook_remove
create index webhook_deliveries_next_idx    on coordinator.webhook_deliveries (webhook_id, test desc, id) where status = 'waiting'; -- webhook_next
create index webhook_deliveries_dead_idx    on coordinator.webhook_deliveries (webhook_id, id) where status = 'dead'; -- webhook_redrive, webhooks_live
comment on table  coordinator.webhook_deliveries              is 'Events for webhooks: those that wait, and the newest that were delivered or are dead. Written by webhook_fill, webhook_finish, webhook_test and webhook_redrive; deleted by webhook_prune.';
comment on column coordinator.webhook_deliveries.id           is 'Number of the delivery; a webhook delivers in this order.';
comment on column coordinator.webhook_deliveries.webhook_id   is 'The webhook.';
comment on column coordinator.webhook_deliveries.message      is 'The header webhook-id of each of its attempts.';
comment on column coordinator.webhook_deliveries.type         is 'Type of the event; reset: events are gone; test: a test.';
comment on column coordinator.webhook_deliveries.key          is 'Key of the event.';
comment on column coordinator.webhook_deliveries.at           is 'When the event happened (database clock).';
comment on column coordinator.webhook_deliveries.test         is 'True: a test, which goes before what waits and is attempted once.';
comment on column coordinator.webhook_deliveries.body         is 'The body of the request; null: it was delivered.';
comment on column coordinator.webhook_deliveries.status       is 'waiting, delivered, or dead: no further attempt is made.';
comment on column coordinator.webhook_deliveries.attempts     is 'Attempts that have ended.';
comment on column coordinator.webhook_deliveries.due_at       is 'Not before this instant is it attempted (database clock).';
comment on column coordinator.webhook_deliveries.attempted_at is 'When the last attempt ended (database clock).';
comment on column coordinator.webhook_deliveries.ended_at     is 'When it was delivered or found dead (database clock).';
comment on column coordinator.webhook_deliveries.response     is 'HTTP status of the last response; null: there was none.';
comment on column coordinator.webhook_deliveries.error        is 'Why the last attempt failed.';
comment on column coordinator.webhook_deliveries.seconds      is 'Duration of the last attempt.';

create table coordinator.webhook_log (
  singleton boolean not null default true constraint webhook_log_pkey primary key,
  seq       bigint  not null,
  late      jsonb   not null default '{}',
  constraint webhook_log_singleton check (singleton)) with (fillfactor = 50);
comment on table  coordinator.webhook_log           is 'Where the comparison of the log with webhooks is. Whoever compares locks the row.';
comment on column coordinator.webhook_log.singleton is 'Always true: there is one row.';
comment on column coordinator.webhook_log.seq       is 'Events up to this one were compared with all webhooks that are not behind.';
comment on column coordinator.webhook_log.late      is 'Webhooks that another transaction had in that moment, with the event after which each has to be compared.';
insert into coordinator.webhook_log (seq) values (0);

create type coordinator.webhook_secret as (webhook bigint, secret text);
comment on type coordinator.webhook_secret is
  'A webhook, and the secret with which its requests are signed: whsec_ and base64.';

create type coordinator.webhook_work as (
  webhook bigint, project text, claim bigint, delivery bigint, message text, url text, secrets text[], body text, attempt integer);
comment on type coordinator.webhook_work is
  'A delivery to attempt, for the leading daemon: under which claim, and what to send where, signed with each of the secrets.';
