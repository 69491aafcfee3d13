-- Users: who owns projects, sessions and tokens.
--
-- The database never receives a password: the caller hashes it (scrypt, 32 MiB) and passes a PHC string. To verify a password,
-- user_challenge counts the attempt and returns the salt, in a transaction of its own, so that a failure of user_verify cannot undo the
-- count. A name without a user also has a count and a salt: neither the results nor their timing reveal whether it exists.
-- Locks: the user, then its tokens.

insert into coordinator.event_types (type, key, data, meaning) values
  ('user.created',          'username', '{role}',              'A user was created. The project of all user events is "default".'),
  ('user.changed',          'username', '{fields,role,disabled}', 'A user was changed; fields: role, email or disabled.'),
  ('user.password_changed', 'username', '{}',                  'A user''s password was set.'),
  ('user.deleted',          'username', '{}',                  'A user was deleted.');

insert into coordinator.rights (function, role) values
  ('user_create',   'admin'),
  ('user_delete',   'admin'),
  ('user_list',     'admin'),
  ('user_password', 'admin'),
  ('user_set',      'admin'),
  ('user_verify',   'admin');

insert into coordinator.limits (name, value, unit, meaning) values
  ('username',      64,  'characters', 'Username: ASCII letters, digits, dots, - and _.'),
  ('user_email',    254, 'characters', 'Email address of a user.'),
  ('user_attempts', 10,  'attempts',   'Attempts to verify a user within 15 minutes; a successful attempt resets the count.');

create or replace function coordinator.user_name(p_username text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_username text := lower(p_username collate "C");
begin
  if coalesce(v_username, '') !~ '^[a-z0-9][a-z0-9._-]{0,63}$' then
    raise exception using errcode = 'ZC103', message = format('invalid username "%s"', left(p_username, 200)),
      hint = 'Use at most 64 letters of the English alphabet, digits, dots, - and _, starting with a letter or digit.';
  end if;
  return v_username;
end
$$;
comment on function coordinator.user_name(text) is
  'Return a username as it is stored, in lower case. ZC103: it is invalid. Internal.';

create or replace function coordinator.user_missing(p_username text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC220', message = format('there is no user "%s"', p_username),
    hint = format('See "coordinator user list"; create one with "coordinator user create %s".', coordinator.shell_word(p_username));
end
$$;
comment on function coordinator.user_missing(text) is
  'Raise ZC220 for a user that does not exist. Internal.';

create or replace function coordinator.user_find(p_username text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_username text := coordinator.user_name(p_username);
  v_id       bigint := (select u.id from coordinator.users u where u.username = v_username);
begin
  if v_id is null then
    perform coordinator.user_missing(v_username);
  end if;
  return v_id;
end
$$;
comment on function coordinator.user_find(text) is
  'Return the number of a user. ZC220: there is no such user. Internal.';

create or replace function coordinator.user_hold(p_username text) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_username text;
  v_id       bigint;
begin
  if p_username is not null then
    v_username := coordinator.user_name(p_username);
    select u.id into v_id from coordinator.users u where u.username = v_username for share;
    if not found then
      perform coordinator.user_missing(v_username);
    end if;
  end if;
  return v_id;
end
$$;
comment on function coordinator.user_hold(text) is
  'Lock a user against changes until the end of the transaction, and return its number; null for null. Call it before locking a project, in each function that creates something for a user. ZC220: there is no such user. Internal.';

create or replace function coordinator.user_email(p_email text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(p_email, '') = '' then
    return null;
  end if;
  perform coordinator.check_name('the email address', p_email, 254);
  if p_email !~ '^[^@[:space:]]+@[^@[:space:]]+$' then
    raise exception using errcode = 'ZC103', message = format('invalid email address "%s"', left(p_email, 254)), hint = 'Write it like ada@example.org.';
  end if;
  return lower(p_email);
end
$$;
comment on function coordinator.user_email(text) is
  'Return an email address as it is stored, in lower case; null for an empty one. ZC103: it is invalid. Internal.';

create or replace function coordinator.user_check(p_role text, p_hash text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_role not in ('reader', 'agent', 'manager', 'admin') then
    raise exception using errcode = 'ZC105', message = format('invalid role "%s"', left(p_role, 200)), hint = 'Use reader, agent, manager or admin.';
  elsif p_hash !~ '^\$scrypt\$ln=15,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$' then
    raise exception using errcode = 'ZC103', message = 'the hash is not the PHC string of a password', -- without the value, which may be the password
      hint = 'Give $scrypt$ln=15,r=8,p=3$salt$hash; "coordinator user" does this for you. Never give the password itself.';
  end if;
end
$$;
comment on function coordinator.user_check(text, text) is
  'Reject an invalid role (ZC105) or hash (ZC103); null is accepted. Internal.';

create or replace function coordinator.user_create(
  p_username text, p_role text default 'agent', p_email text default null, p_hash text default null, p_actor text default null)
returns setof coordinator.users
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_actor    text := coordinator.actor_name(p_actor);
  v_username text := coordinator.user_name(p_username);
  v_email    text := coordinator.user_email(p_email);
  v_user     coordinator.users;
begin
  perform coordinator.everywhere_check();
  p_role := coalesce(p_role, 'agent');
  perform coordinator.user_check(p_role, p_hash);
  insert into coordinator.users as u (username, email, role, actor, created_at, updated_at)
  values (v_username, v_email, p_role, v_actor, v_now, v_now)
  on conflict do nothing returning u.* into v_user;
  if v_user.id is null then
    perform coordinator.user_taken(v_username, v_email);
  end if;
  if p_hash is not null then
    insert into coordinator.user_passwords (user_id, hash, updated_at) values (v_user.id, p_hash, v_now);
  end if;
  perform coordinator.event_append('user.created', 'default', v_username, v_actor, v_now, jsonb_build_object('role', p_role));
  return next v_user;
end
$$;
comment on function coordinator.user_create(text, text, text, text, text) is
  'Create a user. p_hash: the PHC string of the password''s scrypt hash; without it, the user cannot be verified. ZC301: the username or the email is taken.';

create or replace function coordinator.user_taken(p_username text, p_email text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from coordinator.users u where u.username = p_username) then
    raise exception using errcode = 'ZC301', message = format('user "%s" already exists', p_username), hint = 'Choose another name.';
  end if;
  raise exception using errcode = 'ZC301', message = format('the email address "%s" belongs to another user', p_email),
    hint = 'Give another address, or none.';
end
$$;
comment on function coordinator.user_taken(text, text) is
  'Raise ZC301 for a username or email that another user has. Internal.';

create or replace function coordinator.user_challenge(p_username text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_username text := coordinator.user_name(p_username);
  v_hash     text;
  v_count    integer;
  v_ends_at  timestamptz;
begin
  delete from coordinator.user_attempts
  where username = any (array(select a.username from coordinator.user_attempts a where a.ends_at <= v_now order by a.ends_at limit 100
                              for update skip locked));
  insert into coordinator.user_attempts as a (username, count, ends_at) values (v_username, 1, v_now + interval '15 minutes')
  on conflict on constraint user_attempts_pkey do update
  set count = case when a.ends_at <= v_now then 1 else a.count + 1 end,
      ends_at = case when a.ends_at <= v_now then excluded.ends_at else a.ends_at end
  returning a.count, a.ends_at into v_count, v_ends_at;
  if v_count > 10 then
    raise exception using errcode = 'ZC505', message = format('too many attempts to verify user "%s"', v_username),
      detail = jsonb_build_object('retry_at', v_ends_at)::text,
      hint = format('Try again at %s, in %s.', to_char(v_ends_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'),
                    coordinator.duration_text(make_interval(secs => ceil(extract(epoch from v_ends_at - v_now))::double precision)));
  end if;
  select w.hash into v_hash from coordinator.users u join coordinator.user_passwords w on w.user_id = u.id where u.username = v_username;
  return left(coalesce(v_hash, '$scrypt$ln=15,r=8,p=3$' || left(encode(uuid_send(gen_random_uuid()), 'base64'), 22)), 44);
end
$$;
comment on function coordinator.user_challenge(text) is
  'Count an attempt to verify a user, and return the start of the password''s PHC string, up to the salt. Commit it before the password is hashed. A name without a user or password has a random salt. ZC505: too many attempts. No event. Internal: called by the process that hashes passwords.';

create or replace function coordinator.user_verify(p_username text, p_hash text, p_actor text default null)
returns setof coordinator.users
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_username text := coordinator.user_name(p_username);
  v_hash     text;
  v_user     coordinator.users;
begin
  perform coordinator.everywhere_check();
  perform coordinator.actor_name(p_actor);
  perform coordinator.user_check(null, coalesce(p_hash, ''));
  select u.* into v_user from coordinator.users u where u.username = v_username;
  select w.hash into v_hash from coordinator.user_passwords w where w.user_id = v_user.id;
  if v_hash is distinct from p_hash then
    raise exception using errcode = 'ZC504', message = 'wrong username or password', hint = 'Check both, and try again.';
  elsif v_user.disabled_at is not null then
    raise exception using errcode = 'ZC504', message = format('user "%s" is disabled', v_username),
      hint = format('An administrator can enable the user ("coordinator user set %s --enabled").', coordinator.shell_word(v_username));
  end if;
  delete from coordinator.user_attempts where username = v_username;
  return next v_user;
end
$$;
comment on function coordinator.user_verify(text, text, text) is
  'Return the user whose password has this PHC string, made with the salt that user_challenge returned. ZC504: wrong password, or the user does not exist or is disabled. No event.';

create or replace function coordinator.user_password(p_username text, p_hash text, p_actor text default null)
returns setof coordinator.users
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_actor text := coordinator.actor_name(p_actor);
  v_id    bigint;
  v_user  coordinator.users;
begin
  perform coordinator.everywhere_check();
  perform coordinator.user_check(null, coalesce(p_hash, ''));
  v_id := coordinator.user_hold(coalesce(p_username, ''));
  select u.* into v_user from coordinator.users u where u.id = v_id;
  insert into coordinator.user_passwords as w (user_id, hash, updated_at) values (v_user.id, p_hash, v_now)
  on conflict on constraint user_passwords_pkey do update set hash = excluded.hash, updated_at = excluded.updated_at;
  delete from coordinator.user_attempts where username = v_user.username;
  perform coordinator.event_append('user.password_changed', 'default', v_user.username, v_actor, v_now, '{}');
  return next v_user;
end
$$;
comment on function coordinator.user_password(text, text, text) is
  'Set the password of a user, by the PHC string of its scrypt hash, and reset the count of attempts. ZC220: there is no such user.';

create or replace function coordinator.user_list(p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.users
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_visible text[] := coordinator.projects_visible();
begin
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select u.* from coordinator.users u
    where u.username > coalesce(p_after[1], '')
      and (v_visible is null
           or exists (select from coordinator.projects p where p.user_id = u.id and p.name = any (v_visible))
           or exists (select from coordinator.sessions s join coordinator.projects p on p.id = s.project_id
                                        where s.user_id = u.id and p.name = any (v_visible)))
    order by u.username limit p_limit;
end
$$;
comment on function coordinator.user_list(text[], integer) is
  'List users, by username. A role that is restricted to projects sees only users that appear in them. p_after: array[username] of the last row read.';

create or replace function coordinator.user_set(
  p_username text, p_role text default null, p_email text default null, p_disabled boolean default null, p_actor text default null)
returns setof coordinator.users
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ladder constant text[] := '{reader,agent,manager,admin}';
  v_now    timestamptz := coordinator.now_utc();
  v_actor  text := coordinator.actor_name(p_actor);
  v_email  text := coordinator.user_email(p_email);
  v_old    coordinator.users;
  v_new    coordinator.users;
  v_id     bigint;
  v_fields text[];
begin
  perform coordinator.everywhere_check();
  perform coordinator.user_check(p_role, null);
  v_id := coordinator.user_find(p_username);
  select u.* into v_old from coordinator.users u where u.id = v_id for no key update;
  if not found then
    perform coordinator.user_missing(p_username);
  end if;
  v_new := v_old;
  v_new.role := coalesce(p_role, v_old.role);
  v_new.email := case when p_email is null then v_old.email else v_email end;
  v_new.disabled_at := case when p_disabled then coalesce(v_old.disabled_at, v_now) when not p_disabled then null else v_old.disabled_at end;
  v_fields := array_remove(array[
    case when v_new.role <> v_old.role then 'role' end, case when v_new.email is distinct from v_old.email then 'email' end,
    case when v_new.disabled_at is distinct from v_old.disabled_at then 'disabled' end], null);
  if v_fields <> '{}' then
    v_new.updated_at := v_now;
    begin
      update coordinator.users u set role = v_new.role, email = v_new.email, disabled_at = v_new.disabled_at, updated_at = v_now where u.id = v_old.id;
    exception when unique_violation then
      perform coordinator.user_taken(null, v_email);
    end;
    perform coordinator.event_append('user.changed', 'default', v_old.username, v_actor, v_now,
      jsonb_build_object('fields', v_fields, 'role', v_new.role, 'disabled', v_new.disabled_at is not null));
    perform coordinator.token_end(v_old.id,
      case when v_new.disabled_at is null then v_ladder[array_position(v_ladder, v_new.role) + 1:] else v_ladder end, v_actor, v_now);
  end if;
  return next v_new;
end
$$;
comment on function coordinator.user_set(text, text, text, boolean, text) is
  'Change a user; null parameters change nothing, and an empty email removes the address. Disabling a user revokes all its tokens; lowering its role revokes the tokens with a higher role. ZC220: there is no such user. ZC301: the email is taken.';

create or replace function coordinator.user_delete(p_username text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_actor text := coordinator.actor_name(p_actor);
  v_id    bigint := coordinator.user_find(p_username);
  v_user  coordinator.users;
begin
  perform coordinator.everywhere_check();
  select u.* into v_user from coordinator.users u where u.id = v_id for update;
  if not found then
    perform coordinator.user_missing(p_username);
  end if;
  perform coordinator.token_end(v_user.id, '{reader,agent,manager,admin}', v_actor, v_now);
  delete from coordinator.users u where u.id = v_user.id;
  delete from coordinator.user_attempts where username = v_user.username;
  perform coordinator.event_append('user.deleted', 'default', v_user.username, v_actor, v_now, '{}');
  return true;
end
$$;
comment on function coordinator.user_delete(text, text) is
  'Delete a user. Its tokens are revoked; its projects and sessions remain without a user. ZC220: there is no such user.';
