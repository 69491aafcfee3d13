-- Locks: who holds what, who waits for what, and what was broken.

create sequence coordinator.lock_tokens;
comment on sequence coordinator.lock_tokens is 'Fencing tokens of all locks: each grant gets the next one, which is greater than those of all earlier grants.';
create sequence coordinator.lock_tickets;
comment on sequence coordinator.lock_tickets is 'Tickets that wait for locks; the smaller number is served first.';

create type coordinator.lock_resource as (
  resource   text,
  kind       text,
  path       text,
  above      text[],
  covered_by text[],
  pattern    text
);
comment on type coordinator.lock_resource is
  'What the text of a lock means, made by lock_parse. resource: the one spelling; kind: name, path, directory or glob; path: where its advisory lock is (of a glob: its literal directory); above: the directories above that, root first; covered_by: resources that equal or contain it; pattern: regular expression of a glob.';

create type coordinator.lock_grant as (
  resource      text,
  mode          text,
  slot          integer,
  fencing_token bigint,
  acquired_at   timestamptz,
  expires_at    timestamptz,
  ticket        bigint,
  granted       boolean
);
comment on type coordinator.lock_grant is
  'What a request has for one resource: the lock, or, while not granted, a place in the queue until expires_at.';

-- No foreign key to projects or agents: their share locks on one row would be taken by every writer. lock_acquire locks
-- the agent's row itself, agent_end and project_delete take the rows away.
create table coordinator.locks (
  project_id    bigint      not null,
  resource      text        collate "C" not null,
  slot          bigint      not null,
  kind          text        not null,
  prefix        text        collate "C",
  pattern       text        collate "C",
  mode          text        not null,
  slots         integer,
  agent_id      uuid        not null,
  agent_name    text        not null,
  fencing_token bigint      not null,
  ttl           interval    not null,
  delay         interval    not null,
  request_id    uuid,
  ticket        bigint,
  claimed       boolean     not null default true,
  acquired_at   timestamptz not null,
  expires_at    timestamptz not null,
  free_at       timestamptz not null,
  ended_at      timestamptz,
  owner         text        collate "C" not null default '',
  requests      uuid[],
  constraint locks_pkey primary key (project_id, resource, slot) -- lock_acquire: what is it, covers it or is below it
);
create index locks_agent_idx on coordinator.locks (agent_id, ticket); -- the end of an agent; lock_list by agent; lock_poll: what a ticket became
create index locks_free_at_idx on coordinator.locks (free_at); -- lock_expire
-- On an expression, so that no plan made while the table is small takes the primary key for it.
create index locks_prefix_idx on coordinator.locks ((project_id + 0), prefix) where prefix is not null; -- lock_acquire: directories and globs that could hold it, globs below it
comment on table  coordinator.locks               is 'Locks that are held, and expired ones until they are taken over or deleted: read lock_holders. Written by the lock_… functions and agent_end.';
comment on column coordinator.locks.project_id    is 'See projects.';
comment on column coordinator.locks.resource      is 'What is locked, in its one spelling: name:deploy, src/a.py, src/ or src/**/*.py. At most 1,024 bytes.';
comment on column coordinator.locks.slot          is '0: exclusive; 1 to slots: a slot of a counted lock; negative: shared, or exclusive within the lock of a parent owner. So the primary key alone keeps exclusive holders of one resource apart.';
comment on column coordinator.locks.kind          is 'name, path, directory or glob.';
comment on column coordinator.locks.prefix        is 'Of a directory: its path; of a glob: the path of the literal directory above its matches, '''' for the root.';
comment on column coordinator.locks.pattern       is 'Of a glob: regular expression of the paths that it matches.';
comment on column coordinator.locks.mode          is 'exclusive or shared.';
comment on column coordinator.locks.slots         is 'How many may hold a counted lock; null for others.';
comment on column coordinator.locks.agent_id      is 'The holder, see agents.';
comment on column coordinator.locks.agent_name    is 'The holder''s name.';
comment on column coordinator.locks.fencing_token is 'Greater with each grant. A smaller token belongs to a lock that was lost.';
comment on column coordinator.locks.ttl           is 'How long each renewal lasts.';
comment on column coordinator.locks.delay         is 'Lock-delay: how long nobody gets the lock after it expired, was broken or its holder ended; none after a release.';
comment on column coordinator.locks.request_id    is 'The caller''s id of the request to which it was granted; may be null.';
comment on column coordinator.locks.ticket        is 'The ticket that waited for it; null if it was granted at once.';
comment on column coordinator.locks.claimed       is 'False: handed to a waiter that has not claimed it yet (lock_poll); it has 10 seconds.';
comment on column coordinator.locks.acquired_at   is 'When it was granted (database clock).';
comment on column coordinator.locks.expires_at    is 'The holder has it until then.';
comment on column coordinator.locks.free_at       is 'expires_at + delay: others may acquire it from then on; infinity: when the attempt of a job ends that holds it.';
comment on column coordinator.locks.ended_at      is 'When it was broken or its holder ended, if the row stays for its delay or for an open guarded transaction; else null.';
comment on column coordinator.locks.owner         is 'The holder below the agent, such as session/subagent; empty: the agent itself.';
comment on column coordinator.locks.requests      is 'The request id of each acquisition, if its owner acquired it several times; null: one.';

create table coordinator.lock_waits (
  ticket      bigint      not null,
  project_id  bigint      not null,
  resource    text        collate "C" not null,
  kind        text        not null,
  prefix      text        collate "C",
  pattern     text        collate "C",
  mode        text        not null,
  slots       integer,
  agent_id    uuid        not null,
  agent_name  text        not null,
  ttl         interval    not null,
  delay       interval    not null,
  request_id  uuid,
  enqueued_at timestamptz not null,
  expires_at  timestamptz not null,
  owner       text        collate "C" not null default '',
  within      text[]      not null default '{}',
  constraint lock_waits_pkey primary key (project_id, resource, ticket), -- who waits for what overlaps; nothing else has an order of tickets, so that no plan reads all earlier ones
  constraint lock_waits_mode check (mode in ('exclusive', 'shared'))
);
create index lock_waits_prefix_idx on coordinator.lock_waits ((project_id + 0), prefix) where prefix is not null; -- the same, for directories and globs
create index lock_waits_agent_idx on coordinator.lock_waits (agent_id); -- the end of an agent; waits-for cycles
create index lock_waits_expires_at_idx on coordinator.lock_waits (expires_at); -- lock_expire
create index lock_waits_ticket_idx on coordinator.lock_waits using hash (ticket); -- lock_poll
comment on table  coordinator.lock_waits             is 'Tickets that wait: a row for each resource of a ticket. Read lock_waiters. Written by lock_acquire, lock_cancel, lock_expire, agent_end and whatever hands a lock on.';
comment on column coordinator.lock_waits.ticket      is 'Place in the queue: the smaller number is served first.';
comment on column coordinator.lock_waits.project_id  is 'See projects.';
comment on column coordinator.lock_waits.resource    is 'What it waits for, see locks.';
comment on column coordinator.lock_waits.kind        is 'name, path, directory or glob.';
comment on column coordinator.lock_waits.prefix      is 'See locks.';
comment on column coordinator.lock_waits.pattern     is 'See locks.';
comment on column coordinator.lock_waits.mode        is 'exclusive or shared.';
comment on column coordinator.lock_waits.slots       is 'How many may hold a counted lock; null for others.';
comment on column coordinator.lock_waits.agent_id    is 'The waiting agent, see agents.';
comment on column coordinator.lock_waits.agent_name  is 'The waiter''s name.';
comment on column coordinator.lock_waits.ttl         is 'The TTL that the lock will have.';
comment on column coordinator.lock_waits.delay       is 'The lock-delay that the lock will have.';
comment on column coordinator.lock_waits.request_id  is 'The caller''s id of the request; may be null.';
comment on column coordinator.lock_waits.enqueued_at is 'When it began to wait (database clock).';
comment on column coordinator.lock_waits.expires_at  is 'It waits until then, and blocks nobody after that.';
comment on column coordinator.lock_waits.owner       is 'Who waits below the agent, see locks.';
comment on column coordinator.lock_waits.within      is 'Owners of the agent that wait, too, until this request is served: the blocks around it.';

create table coordinator.lock_breaks (
  id            bigint      generated always as identity constraint lock_breaks_pkey primary key,
  project_id    bigint      not null constraint lock_breaks_project_fkey references coordinator.projects (id) on delete cascade,
  resource      text        collate "C" not null,
  agent_id      uuid        not null,
  agent_name    text        not null,
  mode          text        not null,
  fencing_token bigint      not null,
  acquired_at   timestamptz not null,
  reason        text        not null,
  actor         text        not null,
  broken_at     timestamptz not null,
  owner         text        collate "C" not null default '',
  constraint lock_breaks_reason check (length(reason) between 1 and 2000)
);
create index lock_breaks_project_idx on coordinator.lock_breaks (project_id, broken_at); -- what was broken in a project, the newest first
create index lock_breaks_broken_at_idx on coordinator.lock_breaks (broken_at); -- lock_break_prune
create index lock_breaks_token_idx on coordinator.lock_breaks (fencing_token); -- lock_lost: who broke it, and why
comment on table  coordinator.lock_breaks               is 'The audit trail of broken locks. Written by lock_break, pruned after 90 days.';
comment on column coordinator.lock_breaks.id            is 'Order of the breaks.';
comment on column coordinator.lock_breaks.project_id    is 'See projects.';
comment on column coordinator.lock_breaks.resource      is 'What was locked.';
comment on column coordinator.lock_breaks.agent_id      is 'The holder that lost it.';
comment on column coordinator.lock_breaks.agent_name    is 'The name of that holder.';
comment on column coordinator.lock_breaks.mode          is 'exclusive or shared.';
comment on column coordinator.lock_breaks.fencing_token is 'The token that became invalid.';
comment on column coordinator.lock_breaks.acquired_at   is 'When it was granted.';
comment on column coordinator.lock_breaks.reason        is 'Why, in the words of the one who broke it.';
comment on column coordinator.lock_breaks.actor         is 'Who broke it: the name of an agent or of a database role.';
comment on column coordinator.lock_breaks.broken_at     is 'When it was broken (database clock).';
comment on column coordinator.lock_breaks.owner         is 'The owner that lost it, see locks.';
