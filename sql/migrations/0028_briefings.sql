-- What each agent has been told of in briefings, so that nothing is repeated.

-- No foreign key to projects, whose row all writers would lock; project_delete takes the rows away.
create table coordinator.briefings (
  project_id bigint      not null,
  agent_name text        collate "C" not null,
  patterns   text[]      not null default '{}',
  told       jsonb       not null default '{}',
  read_at    timestamptz not null,
  constraint briefings_pkey primary key (project_id, agent_name) -- briefing_read
);
create index briefings_read_at_idx on coordinator.briefings (read_at); -- briefing_prune
comment on table  coordinator.briefings            is 'What each agent has been told of; the directives are in directive_receipts. Read briefings_read. Written by briefing_read, briefing_subscribe and briefing_prune.';
comment on column coordinator.briefings.project_id is 'The project. Not a foreign key: all writers would lock its row.';
comment on column coordinator.briefings.agent_name is 'Name of the agent; it stays the same when the agent registers again.';
comment on column coordinator.briefings.patterns   is 'Patterns of the keys of signals that it watches; * stands for any text.';
comment on column coordinator.briefings.told       is 'Version of each watched signal of which it was told, by key.';
comment on column coordinator.briefings.read_at    is 'When it last read a briefing with news (database clock).';

create type coordinator.briefing_item as (
  kind       text,
  key        text,
  agent      text,
  text       text,
  started_at timestamptz,
  expires_at timestamptz,
  more       bigint
);
comment on type coordinator.briefing_item is
  'One thing that an agent should know, by kind. directive: key is its number, agent the sender, text the beginning of its body. signal: agent who set it, text the beginning of its value, null if it is not set any more. agent: agent at work, text its task, key its work tree. lock: key is the resource, agent the holder, text its task. more: how many of the kind follow that are not shown, in the last row of each kind.';
