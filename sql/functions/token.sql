-- Tokens: who may use HTTP.
--
-- The database never receives the secret: the creator of a token generates 256 random bits, keeps them, and passes their SHA-256. So no
-- statement, log line, backup or replica contains a usable secret. A slow hash protects secrets that people choose; 256 random bits
-- cannot be guessed. Tokens are looked up by the index on the hash: timing may reveal something about the requested hash, which does
-- not help to find its secret.
--
-- A gateway trusts a check for at most a second, and discards all checks at a NOTIFY on 'coordinator.token', which the revoking
-- transaction sends. This NOTIFY is rare and does not depend on the relay.

insert into coordinator.event_types (type, key, data, meaning) values
  ('token.created', 'id of the token', '{name,role,everywhere,expires_at}', 'A token was created; everywhere: it is valid in all projects, and the event''s project is "default".'),
  ('token.revoked', 'id of the token', '{name,role}',                       'A token was revoked.');

insert into coordinator.rights (function, role) values
  ('token_create', 'admin'),
  ('token_list',   'admin'),
  ('token_revoke', 'admin');

create or replace function coordinator.token_create(
  p_name text, p_role text, p_hash text, p_prefix text, p_project text default null, p_ttl interval default '90 days',
  p_username text default null, p_actor text default null)
returns setof coordinator.token
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_project bigint := case when p_project is not null then coordinator.project_id(p_project) end;
  v_actor   text := coordinator.actor_name(p_actor);
  v_id      bigint;
  v_user    coordinator.users;
begin
  if p_project is null then
    perform coordinator.everywhere_check();
  end if;
  perform coordinator.check_name('the name of the token', p_name);
  perform coordinator.check_ttl(p_ttl);
  if p_role is null or p_role not in ('reader', 'agent', 'manager', 'admin') then
    raise exception using errcode = 'ZC105', message = format('invalid role "%s"', left(p_role, 200)),
      hint = 'Use reader, agent, manager or admin.';
  elsif p_role = 'admin' and p_project is not null then
    raise exception using errcode = 'ZC105', message = 'an admin token cannot be restricted to a project',
      hint = 'Omit the project, or use the role manager.';
  elsif coalesce(p_hash, '') !~ '^[0-9a-f]{64}$' then
    raise exception using errcode = 'ZC103', message = 'the hash is not the SHA-256 of a secret',
      hint = 'Give 64 hexadecimal digits; "coordinator token create" does this for you.';
  elsif coalesce(p_prefix, '') !~ '^coo_[A-Za-z0-9_-]{4}$' then
    raise exception using errcode = 'ZC103', message = 'the prefix is not the start of a secret',
      hint = 'Give the secret''s first 8 characters: coo_ and 4 more.';
  end if;
  perform coordinator.name_enter(p_name);
  if p_username is not null then
    v_id := coordinator.user_hold(p_username); -- lock the user until the commit
    select u.* into v_user from coordinator.users u where u.id = v_id;
    if v_user.disabled_at is not null then
      raise exception using errcode = 'ZC105', message = format('user "%s" is disabled', v_user.username),
        hint = format('Enable the user first ("coordinator user set %s --enabled").', coordinator.shell_word(v_user.username));
    elsif array_position('{reader,agent,manager,admin}'::text[], p_role) > array_position('{reader,agent,manager,admin}'::text[], v_user.role) then
      raise exception using errcode = 'ZC105', message = format('user "%s" is %s, and the token would be %s', v_user.username, v_user.role, p_role),
        hint = format('Create a token with the role %s, or change the role of the user first.', v_user.role);
    end if;
  end if;
  if p_role in ('manager', 'admin') and exists (
       select from coordinator.agents a where a.name = p_name and (v_project is null or a.project_id = v_project)) and not exists (
       select from coordinator.tokens t where t.name = p_name and t.role in ('manager', 'admin') and t.expires_at > v_now) then
    raise exception using errcode = 'ZC301', message = format('an agent "%s" is registered and would act under the name of the token', p_name),
      hint = 'Choose another name, or deregister the agent first.';
  end if;
  if v_project is not null then
    perform coordinator.project_hold(v_project); -- before its tokens, like project_delete
  end if;
  -- Delete tokens that ended long ago; their events remain.
  delete from coordinator.tokens
  where tokens.id = any (array(select t.id from coordinator.tokens t where t.expires_at < v_now - interval '90 days'
                               order by t.expires_at limit 1000));
  insert into coordinator.tokens (hash, prefix, name, role, project_id, actor, created_at, expires_at, user_id)
  values (p_hash, p_prefix, p_name, p_role, v_project, v_actor, v_now, v_now + p_ttl, v_user.id)
  on conflict (hash) do nothing
  returning tokens.id into v_id;
  if v_id is null then
    raise exception using errcode = 'ZC301', message = 'a token with this secret already exists', hint = 'Generate a new secret.';
  end if;
  perform coordinator.event_append('token.created', coalesce(p_project, 'default'), v_id::text, v_actor, v_now,
    jsonb_build_object('name', p_name, 'role', p_role, 'everywhere', p_project is null, 'expires_at', v_now + p_ttl));
  return query select v_id, p_name, p_role, p_project, p_prefix, v_actor, v_now, v_now + p_ttl, null::timestamptz, null::timestamptz, v_user.username;
end
$$;
comment on function coordinator.token_create(text, text, text, text, text, interval, text, text) is
  'Create a token from the SHA-256 of its secret. The token is valid for p_ttl (1 second to 366 days), in one project or in all (p_project null). p_username: the token ends with this user, whose role must include the token''s role. The caller keeps the secret itself.';

create or replace function coordinator.token_authenticate(p_hash text)
returns setof coordinator.token
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_token record;
begin
  select t.*, p.name as project, u.username into v_token
  from coordinator.tokens t left join coordinator.projects p on p.id = t.project_id left join coordinator.users u on u.id = t.user_id
  where t.hash = p_hash;
  if v_token.id is null then
    raise exception using errcode = 'ZC501', message = 'unknown token',
      hint = 'Check that it was copied completely; create a token with "coordinator token create".';
  elsif v_token.revoked_at is not null then
    raise exception using errcode = 'ZC502', message = 'the token was revoked', hint = 'Ask an administrator for a new one.';
  elsif v_token.expires_at <= coordinator.now_utc() then
    raise exception using errcode = 'ZC503', message = 'the token has expired', hint = 'Ask an administrator for a new one.';
  end if;
  return query select v_token.id, v_token.name, v_token.role, v_token.project, v_token.prefix, v_token.actor,
    v_token.created_at, v_token.expires_at, v_token.last_used_at, v_token.revoked_at, v_token.username;
end
$$;
comment on function coordinator.token_authenticate(text) is
  'Return the token whose secret has this SHA-256. ZC501: unknown. ZC502: revoked. ZC503: expired. Internal: called by gateways.';

create or replace function coordinator.token_use(p_token bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := coordinator.now_utc();
begin
  update coordinator.tokens set last_used_at = v_now
  where id = p_token and (last_used_at is null or last_used_at < v_now - interval '1 minute');
  return found;
end
$$;
comment on function coordinator.token_use(bigint) is
  'Record that a token was used, at most once a minute. No event. Internal: called by gateways.';

create or replace function coordinator.token_live(p_tokens bigint[]) returns bigint[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_tokens) > 1000 then
    raise exception using errcode = 'ZC102', message = format('%s tokens; at most 1000 are allowed', cardinality(p_tokens)),
      hint = 'Give fewer tokens.';
  end if;
  return array(select id from coordinator.tokens
               where id = any (p_tokens) and revoked_at is null and expires_at > coordinator.now_utc());
end
$$;
comment on function coordinator.token_live(bigint[]) is
  'Return those of up to 1,000 tokens that are still valid. Internal: gateways check the tokens of open streams.';

create or replace function coordinator.token_list(p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.token
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_visible text[] := coordinator.projects_visible();
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  return query
    select t.id, t.name, t.role, p.name, t.prefix, t.actor, t.created_at, t.expires_at, t.last_used_at, t.revoked_at, u.username
    from coordinator.tokens t left join coordinator.projects p on p.id = t.project_id left join coordinator.users u on u.id = t.user_id
    where t.id > coalesce(p_after[1]::bigint, 0) and (v_visible is null or p.name = any (v_visible))
    order by t.id limit p_limit;
end
$$;
comment on function coordinator.token_list(text[], integer) is
  'List tokens in order of creation, including ended ones; project null: all projects. p_after: array[id] of the last row read.';

create or replace function coordinator.token_revoke(p_token bigint, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_token record;
begin
  select t.name, t.role, t.revoked_at, t.project_id, p.name as project into v_token
  from coordinator.tokens t left join coordinator.projects p on p.id = t.project_id
  where t.id = p_token for update of t;
  if not found then
    raise exception using errcode = 'ZC206', message = format('there is no token %s', p_token), hint = 'See "coordinator token list".';
  end if;
  if v_token.project is null then
    perform coordinator.everywhere_check();
  else
    perform coordinator.project_check(v_token.project);
  end if;
  if v_token.revoked_at is not null then
    return false;
  end if;
  update coordinator.tokens set revoked_at = v_now, expires_at = least(expires_at, v_now) where id = p_token;
  perform coordinator.event_append('token.revoked', coalesce(v_token.project, 'default'), p_token::text,
    coordinator.actor_name(p_actor), v_now, jsonb_build_object('name', v_token.name, 'role', v_token.role));
  perform coordinator.relay_notify('coordinator.token', '');
  return true;
end
$$;
comment on function coordinator.token_revoke(bigint, text) is
  'Revoke a token: it is invalid after the commit, and streams opened with it are closed. Return false if it was already revoked.';

create or replace function coordinator.token_end(p_user_id bigint, p_roles text[], p_actor text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with ended as (
    update coordinator.tokens t set revoked_at = p_now, expires_at = least(t.expires_at, p_now)
    where t.user_id = p_user_id and t.role = any (p_roles) and t.revoked_at is null
    returning t.id, t.name, t.role, t.project_id)
  insert into coordinator.events (type, project, key, actor, at, data)
  select 'token.revoked', coalesce(p.name, 'default'), e.id::text, p_actor, p_now, jsonb_build_object('name', e.name, 'role', e.role)
  from ended e left join coordinator.projects p on p.id = e.project_id order by e.id;
  if found then
    perform coordinator.relay_notify('coordinator.token', '');
  end if;
end
$$;
comment on function coordinator.token_end(bigint, text[], text, timestamptz) is
  'Revoke those tokens of a user that have one of p_roles. Internal.';
