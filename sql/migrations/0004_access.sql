-- Access: tokens for HTTP, and which project a role of the database is kept to.

create table coordinator.tokens (
  id           bigint      generated always as identity constraint tokens_pkey primary key, -- token_revoke, token_live
  hash         text        collate "C" not null,
  prefix       text        collate "C" not null,
  name         text        collate "C" not null,
  role         text        not null,
  project_id   bigint      constraint tokens_project_fkey references coordinator.projects (id) on delete cascade,
  actor        text        not null,
  created_at   timestamptz not null,
  expires_at   timestamptz not null,
  last_used_at timestamptz,
  revoked_at   timestamptz,
  constraint tokens_hash_key unique (hash), -- token_check: every request whose token is not in the gateway's memory
  constraint tokens_hash check (hash ~ '^[0-9a-f]{64}$'),
  constraint tokens_prefix check (prefix ~ '^coo_[A-Za-z0-9_-]{4}$'),
  constraint tokens_name check (length(name) between 1 and 200),
  constraint tokens_role check (role in ('reader', 'agent', 'manager', 'admin')),
  constraint tokens_admin check (role <> 'admin' or project_id is null)
);
create index tokens_project_idx on coordinator.tokens (project_id); -- project_delete: those that end with their project
create index tokens_expires_at_idx on coordinator.tokens (expires_at); -- token_create: those that ended long ago
comment on table  coordinator.tokens              is 'Tokens for HTTP: their hashes, never the secrets. Written by token_create, token_use, token_revoke; deleted 90 days after their end, or with their project.';
comment on column coordinator.tokens.id           is 'Number of the token.';
comment on column coordinator.tokens.hash         is 'SHA-256 of the secret, hexadecimal. The secret is 256 random bits: nobody can guess it, so that nothing slower is needed.';
comment on column coordinator.tokens.prefix       is 'First 8 characters of the secret, to recognise it by.';
comment on column coordinator.tokens.name         is 'Who has it, for people; the actor of what it does where no other is named. Need not be unique: a new token can take over from an old one.';
comment on column coordinator.tokens.role         is 'reader, agent, manager or admin; each may do what the one before may. See rights.';
comment on column coordinator.tokens.project_id   is 'The one project that it opens, see projects; null: all.';
comment on column coordinator.tokens.actor        is 'Who made it: a token''s name or a role of the database.';
comment on column coordinator.tokens.created_at   is 'When it was made (database clock).';
comment on column coordinator.tokens.expires_at   is 'Opens nothing from here on.';
comment on column coordinator.tokens.last_used_at is 'When it was used, give or take a minute; null: never.';
comment on column coordinator.tokens.revoked_at   is 'When it was revoked; null: it was not.';

-- By name, without a foreign key: a role must not be free of its bounds because a project was deleted.
create table coordinator.role_projects (
  role    text collate "C" not null,
  project text collate "C" not null,
  constraint role_projects_pkey primary key (role, project), -- every call: what is the caller's role kept to
  constraint role_projects_role check (length(role) between 1 and 63),
  constraint role_projects_project check (project ~ '^[a-z0-9][a-z0-9_-]{0,35}$')
);
comment on table  coordinator.role_projects         is 'Projects that roles of the database are kept to; a role without a row here may use all. Written by role_bind and role_unbind.';
comment on column coordinator.role_projects.role    is 'Name of a role that logs in (session_user); SET ROLE changes nothing.';
comment on column coordinator.role_projects.project is 'Name of a project that it may use.';

create sequence coordinator.role_bindings as bigint minvalue 0 start 0;
comment on sequence coordinator.role_bindings is '0 until the first role is kept to a project, then 1 for ever: then lock_acquire and lock_release look for bindings. Set by a trigger of role_projects.';
select setval('coordinator.role_bindings', 0);

alter table coordinator.relay add column payloads text not null default 'full'
  constraint relay_payloads check (payloads in ('full', 'pointer'));
comment on column coordinator.relay.payloads is 'What NOTIFY carries: full (the event) or pointer (its cursor and type only). Any role that may connect can LISTEN. Written by relay_configure.';
