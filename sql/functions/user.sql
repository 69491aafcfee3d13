-- Users: who owns projects, sessions and tokens.

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
    hint = 'See "coordinator user list"; create one with "coordinator user create NAME".';
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
  v_id bigint;
begin
  if p_username is not null then
    select u.id into v_id from coordinator.users u where u.username = coordinator.user_name(p_username) for share;
    if not found then
      perform coordinator.user_missing(coordinator.user_name(p_username));
    end if;
  end if;
  return v_id;
end
$$;
comment on function coordinator.user_hold(text) is
  'Return the number of a user, who stays as it is until the end of the transaction; null for null. For each function that makes something that belongs to a user, before it locks a project. ZC220: there is no such user. Internal.';
