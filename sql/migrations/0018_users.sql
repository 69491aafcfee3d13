-- Users and sessions: who works, and in which conversation or run of work.

create table coordinator.users (
  id          bigint      generated always as identity constraint users_pkey primary key,
  username    text        collate "C" not null,
  email       text        collate "C",
  role        text        not null,
  disabled_at timestamptz,
  actor       text        not null,
  created_at  timestamptz not null,
  updated_at  timestamptz not null,
  constraint users_username_key unique (username), -- user_list, and every function that is given one
  constraint users_email_key unique (email), -- user_create, user_set: an address belongs to one user
  constraint users_username check (username ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  constraint users_role check (role in ('reader', 'agent', 'manager', 'admin'))
);
comment on table  coordinator.users             is 'People and programs that own projects, sessions and tokens. Written by user_create and user_set; deleted by user_delete. A role that is restricted to projects sees those that appear in them.';
comment on column coordinator.users.id          is 'Internal number, never reused.';
comment on column coordinator.users.username    is 'Name: lower-case letters, digits, dots, - and _; at most 64 characters.';
comment on column coordinator.users.email       is 'Address in lower case; null: none.';
comment on column coordinator.users.role        is 'reader, agent, manager or admin; each includes the ones before it. No token of the user has more.';
comment on column coordinator.users.disabled_at is 'When the user was disabled; null: it is not.';
comment on column coordinator.users.actor       is 'Who created it.';
comment on column coordinator.users.created_at  is 'When it was created (database clock).';
comment on column coordinator.users.updated_at  is 'When it was last changed.';

create table coordinator.user_passwords (
  user_id    bigint      constraint user_passwords_pkey primary key constraint user_passwords_user_fkey references coordinator.users (id) on delete cascade,
  hash       text        not null,
  updated_at timestamptz not null,
  constraint user_passwords_hash check (hash ~ '^\$scrypt\$ln=15,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$')
);
comment on table  coordinator.user_passwords            is 'Hashes of passwords; only administrators read them. Written by user_create and user_password.';
comment on column coordinator.user_passwords.user_id    is 'The user, see users.';
comment on column coordinator.user_passwords.hash       is 'PHC string of scrypt: costs, salt and hash. The password itself never reaches the database.';
comment on column coordinator.user_passwords.updated_at is 'When the password was set.';

create table coordinator.user_attempts (
  username text        collate "C" constraint user_attempts_pkey primary key, -- user_challenge, user_verify
  count    integer     not null,
  ends_at  timestamptz not null
);
create index user_attempts_ends_at_idx on coordinator.user_attempts (ends_at); -- user_challenge: those that are over
comment on table  coordinator.user_attempts          is 'Attempts to verify users, of unknown ones, too. Written by user_challenge; deleted by user_verify, if it succeeds, and user_challenge, once they are over.';
comment on column coordinator.user_attempts.username is 'Name that was tried.';
comment on column coordinator.user_attempts.count    is 'How often it was tried.';
comment on column coordinator.user_attempts.ends_at  is 'The count starts again after this.';

alter table coordinator.projects add constraint projects_user_fkey foreign key (user_id) references coordinator.users (id) on delete set null;
-- Without an index: every call locks those of projects, and has no more room for locks on the fast path.
alter table coordinator.tokens add constraint tokens_user_fkey foreign key (user_id) references coordinator.users (id) on delete set null;
create index tokens_user_idx on coordinator.tokens (user_id); -- token_end, user_delete

create table coordinator.sessions (
  id          bigint      generated always as identity constraint sessions_pkey primary key, -- session_continue
  project_id  bigint      not null constraint sessions_project_fkey references coordinator.projects (id) on delete cascade,
  key         text        collate "C" not null,
  user_id     bigint      constraint sessions_user_fkey references coordinator.users (id) on delete set null,
  title       text        not null default '',
  mission     text        not null default '',
  status      text        collate "C" not null default 'active',
  context     jsonb       not null default '{}',
  forked_from text        collate "C",
  actor       text        not null,
  created_at  timestamptz not null,
  updated_at  timestamptz not null,
  trim_at     timestamptz,
  constraint sessions_key unique (project_id, key), -- session_enter, session_find
  constraint sessions_status check (status ~ '^[a-z][a-z0-9_-]{0,35}$')
);
create index sessions_recent_idx on coordinator.sessions (project_id, updated_at desc, key desc); -- session_list
create index sessions_status_idx on coordinator.sessions (project_id, status, updated_at desc, key desc); -- session_list by status
create index sessions_user_idx on coordinator.sessions (user_id, project_id, updated_at desc, key desc); -- session_list by user, user_delete
create index sessions_trim_at_idx on coordinator.sessions (trim_at) where trim_at is not null; -- session_expire
comment on table  coordinator.sessions             is 'Conversations and runs of work. Written by session_create, session_set, session_archive and session_fork, and by whatever first appends or puts something under the key.';
comment on column coordinator.sessions.id          is 'Internal number, never reused.';
comment on column coordinator.sessions.project_id  is 'The project, see projects.';
comment on column coordinator.sessions.key         is 'Name in its project: the key of its messages, steps and state.';
comment on column coordinator.sessions.user_id     is 'Whose session it is, see users; null: nobody''s.';
comment on column coordinator.sessions.title       is 'One line for people; may be empty.';
comment on column coordinator.sessions.mission     is 'What is to be done; may be empty.';
comment on column coordinator.sessions.status      is 'active, archived (then nothing is appended or put), or a word of the caller''s own.';
comment on column coordinator.sessions.context     is 'An object of the caller''s own.';
comment on column coordinator.sessions.forked_from is 'Key of the session of which it began as a copy; null: of none.';
comment on column coordinator.sessions.actor       is 'Who created it.';
comment on column coordinator.sessions.created_at  is 'When it was created (database clock).';
comment on column coordinator.sessions.updated_at  is 'When it was last changed, or something was last appended or put, to about a minute.';
comment on column coordinator.sessions.trim_at     is 'When session_expire looks at it next; null: never.';

-- Readers see these tables as they are, without the rows of projects that are closed to them. The owner's functions see all rows.
alter table coordinator.users enable row level security;
alter table coordinator.sessions enable row level security;
create policy sessions_visible on coordinator.sessions for select using (project_id in (select p.id from coordinator.projects p));
create policy users_visible on coordinator.users for select using (
  (select coordinator.projects_visible()) is null or exists (select from coordinator.projects p where p.user_id = users.id)
  or exists (select from coordinator.sessions s where s.user_id = users.id));
