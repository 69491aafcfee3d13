-- Access: tokens for HTTP, the projects to which roles are restricted, and responses to requests that may be repeated.

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
  user_id      bigint,
  constraint tokens_hash_key unique (hash), -- token_check: every request whose token is not in the gateway's memory
  constraint tokens_hash check (hash ~ '^[0-9a-f]{64}$'),
  constraint tokens_prefix check (prefix ~ '^coo_[A-Za-z0-9_-]{4}$'),
  constraint tokens_name check (length(name) between 1 and 200),
  constraint tokens_role check (role in ('reader', 'agent', 'manager', 'admin')),
  constraint tokens_admin check (role <> 'admin' or project_id is null)
);
create index tokens_project_idx on coordinator.tokens (project_id); -- project_delete: those that end with their project
create index tokens_expires_at_idx on coordinator.tokens (expires_at); -- token_create: those that ended long ago
comment on table  coordinator.tokens              is 'Tokens for HTTP: their hashes, never the secrets. Written by token_create, token_use and token_revoke; deleted 90 days after they end, or with their project.';
comment on column coordinator.tokens.id           is 'Number of the token.';
comment on column coordinator.tokens.hash         is 'SHA-256 of the secret, hexadecimal. The secret is 256 random bits that nobody can guess, so nothing slower is needed.';
comment on column coordinator.tokens.prefix       is 'First 8 characters of the secret, to recognise it.';
comment on column coordinator.tokens.name         is 'Who uses it, for people; the actor of its calls if they name no other. Need not be unique: a new token can replace an old one.';
comment on column coordinator.tokens.role         is 'reader, agent, manager or admin; each includes the ones before it. See rights.';
comment on column coordinator.tokens.project_id   is 'The only project that it gives access to, see projects; null: all.';
comment on column coordinator.tokens.actor        is 'Who created it: the name of a token or of a database role.';
comment on column coordinator.tokens.created_at   is 'When it was created (database clock).';
comment on column coordinator.tokens.expires_at   is 'It is invalid after this.';
comment on column coordinator.tokens.last_used_at is 'When it was last used, to about a minute; null: never.';
comment on column coordinator.tokens.revoked_at   is 'When it was revoked; null: it was not.';
comment on column coordinator.tokens.user_id      is 'The user with whom it ends, see users; null: none.';

create type coordinator.token as (
  id           bigint,
  name         text,
  role         text,
  project      text,
  prefix       text,
  actor        text,
  created_at   timestamptz,
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz,
  username     text
);
comment on type coordinator.token is
  'A token without the hash of its secret; project null: all projects. A type and not a view, since only administrators may read tokens.';

-- By name, without a foreign key: a role must not be free of its bounds because a project was deleted.
create table coordinator.role_projects (
  role    text collate "C" not null,
  project text collate "C" not null,
  constraint role_projects_pkey primary key (role, project), -- every call: what is the caller's role kept to
  constraint role_projects_role check (length(role) between 1 and 63),
  constraint role_projects_project check (project ~ '^[a-z0-9][a-z0-9_-]{0,35}$')
);
comment on table  coordinator.role_projects         is 'Projects to which database roles are restricted; a role without a row may use all. Written by role_bind and role_unbind.';
comment on column coordinator.role_projects.role    is 'Name of a role that logs in (session_user); SET ROLE has no effect.';
comment on column coordinator.role_projects.project is 'Name of a project that it may use.';

create sequence coordinator.role_bindings as bigint minvalue 0 start 0;
comment on sequence coordinator.role_bindings is '0 until a role is first restricted to a project, then 1 for ever: from then on lock_acquire and lock_release look for bindings. Set by a trigger of role_projects.';
select setval('coordinator.role_bindings', 0);

create table coordinator.idempotency_keys (
  project    text        collate "C" not null,
  key        text        collate "C" not null,
  request    text        not null,
  response   text,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  caller     text        collate "C" not null default '',
  position   text,
  constraint idempotency_keys_pkey primary key (project, caller, key), -- idempotency_claim, idempotency_store
  constraint idempotency_keys_key check (length(key) between 1 and 200)
);
create index idempotency_keys_expires_at_idx on coordinator.idempotency_keys (expires_at); -- idempotency_prune
comment on table  coordinator.idempotency_keys            is 'Responses to requests with an Idempotency-Key, written in the transaction of the change by idempotency_claim and idempotency_store, deleted by idempotency_prune.';
comment on column coordinator.idempotency_keys.project    is 'Name of the project; empty for requests without one.';
comment on column coordinator.idempotency_keys.key        is 'The caller''s key, at most 200 characters.';
comment on column coordinator.idempotency_keys.request    is 'Digest of the request: the key is valid for this request only.';
comment on column coordinator.idempotency_keys.response   is 'The response, JSON as it was sent; null only within the transaction that claimed the key.';
comment on column coordinator.idempotency_keys.created_at is 'When the key was claimed (database clock).';
comment on column coordinator.idempotency_keys.expires_at is 'The key can be claimed again after this (database clock).';
comment on column coordinator.idempotency_keys.caller     is 'Whose key it is: the id of a token; empty where access is open.';
comment on column coordinator.idempotency_keys.position   is 'Position of the transaction that made the change, see position_now.';
