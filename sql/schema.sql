-- The tables, sequences and views that the migrations and functions result in. "make schema" generates this file, and a test compares it.

-- Running agents, one row per incarnation. Written by agent_register, agent_heartbeat, agent_deregister and agent_reap.
create table coordinator.agents (
  id            uuid not null default gen_random_uuid(), -- New at each start of the agent; identifies the holder of locks and signals.
  project_id    bigint not null, -- See projects.
  project       text collate "C" not null, -- Name of the project, which never changes; lock_acquire need not look it up.
  name          text collate "C" not null, -- What directives are addressed to; stays the same across restarts.
  role          text collate "C", -- What directives to a role are addressed to; may be null.
  job_types     text[] not null default '{}'::text[], -- Kinds of work that it accepts.
  metadata      jsonb not null default '{}'::jsonb, -- A JSON object chosen by the agent.
  process_id    integer, -- The process with which it ends, see processes; null if only its heartbeat counts.
  ttl           interval not null, -- How long it may go without a heartbeat.
  registered_at timestamp with time zone not null, -- When it registered (database clock).
  heartbeat_at  timestamp with time zone not null, -- When it last sent a heartbeat (database clock).
  expires_at    timestamp with time zone not null, -- heartbeat_at + ttl: reaped after this.
  labels        text[] not null default '{}'::text[], -- What it can do beside its job_types; a job may require labels of its worker.
  constraint agents_pkey PRIMARY KEY (id),
  constraint agents_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint agents_name CHECK (((length(name) >= 1) AND (length(name) <= 200))),
  constraint agents_role CHECK (((length(role) >= 1) AND (length(role) <= 200)))
);
CREATE INDEX agents_covered_idx ON coordinator.agents USING btree (heartbeat_at) WHERE ((expires_at - heartbeat_at) > ttl);
CREATE INDEX agents_expires_at_idx ON coordinator.agents USING btree (expires_at);
CREATE INDEX agents_name_idx ON coordinator.agents USING btree (project_id, name, id);
CREATE INDEX agents_process_idx ON coordinator.agents USING btree (process_id) WHERE (process_id IS NOT NULL);

-- Agents that deregistered or were reaped. Written by agent_deregister and agent_reap; pruned some time later.
create table coordinator.agents_ended (
  id            uuid not null, -- As in agents.
  project_id    bigint not null, -- See projects.
  name          text collate "C" not null, -- As in agents.
  role          text, -- As in agents.
  job_types     text[] not null, -- As in agents.
  metadata      jsonb not null, -- As in agents.
  ttl           interval not null, -- As in agents.
  registered_at timestamp with time zone not null, -- As in agents.
  heartbeat_at  timestamp with time zone not null, -- When it last sent a heartbeat.
  expires_at    timestamp with time zone not null, -- When it would have been reaped without a heartbeat.
  process_id    integer, -- The process with which it ended; may be null.
  ended_at      timestamp with time zone not null, -- When it ended (database clock).
  end_reason    text not null, -- deregistered, expired (no heartbeat) or process died.
  labels        text[] not null default '{}'::text[], -- What it could do beside its job_types.
  constraint agents_ended_pkey PRIMARY KEY (id)
);
CREATE INDEX agents_ended_at_idx ON coordinator.agents_ended USING btree (ended_at);
CREATE INDEX agents_ended_name_idx ON coordinator.agents_ended USING btree (project_id, name, id);

-- Contents of artifacts: each content is there once for each project. Uploads in progress, too. Written by artifact_begin, artifact_write, artifact_finish and artifact_prune.
create table coordinator.artifact_blobs (
  id          bigint not null generated always as identity, -- Internal number.
  project_id  bigint not null, -- The project.
  upload      uuid not null default gen_random_uuid(), -- Id by which parts are written.
  sha256      text collate "C", -- SHA-256 of the content, in hexadecimal; null: an upload whose hash is not known yet.
  bytes       bigint, -- Size of the content; null in an upload in progress.
  finished_at timestamp with time zone, -- When the content was complete and verified (database clock); null: an upload in progress, which no reader sees.
  finished    boolean not null default (finished_at IS NOT NULL), -- Whether it is complete and verified.
  due_at      timestamp with time zone, -- When artifact_prune looks whether it is still needed; null while an artifact has it.
  stored      boolean not null default false, -- Whether the bytes are in an object store, as artifact_objects says; else they are in artifact_chunks.
  constraint artifact_blobs_pkey PRIMARY KEY (id),
  constraint artifact_blobs_key UNIQUE (project_id, finished, sha256),
  constraint artifact_blobs_upload_key UNIQUE (upload),
  constraint artifact_blobs_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint artifact_blobs_finished CHECK (((finished_at IS NULL) OR ((sha256 IS NOT NULL) AND (bytes IS NOT NULL)))),
  constraint artifact_blobs_sha256 CHECK ((sha256 ~ '^[0-9a-f]{64}$'::text))
);
CREATE INDEX artifact_blobs_due_idx ON coordinator.artifact_blobs USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX artifact_blobs_move_idx ON coordinator.artifact_blobs USING btree (id) WHERE ((finished_at IS NOT NULL) AND (NOT stored) AND (bytes > 0));

-- Parts of contents that are not in an object store. Each has 1,048,576 bytes, except for the last. A part is written once and never changed.
create table coordinator.artifact_chunks (
  blob_id bigint not null, -- The content.
  part    integer not null, -- Number of the part, from 1.
  data    bytea not null, -- The bytes, compressed with lz4 where the server has it, else not at all.
  constraint artifact_chunks_pkey PRIMARY KEY (blob_id, part),
  constraint artifact_chunks_blob_fkey FOREIGN KEY (blob_id) REFERENCES coordinator.artifact_blobs(id) ON DELETE CASCADE,
  constraint artifact_chunks_data CHECK (((octet_length(data) >= 1) AND (octet_length(data) <= 1048576))),
  constraint artifact_chunks_part CHECK (((part >= 1) AND (part <= 64)))
);

-- Objects of an object store that have the bytes of a content, will have them, or have to be deleted. A row is there before its object, and goes after it. Written by artifact_move, artifact_moved, artifact_object_delete and artifact_object_deleted.
create table coordinator.artifact_objects (
  id         bigint not null generated always as identity, -- Number of the object.
  blob_id    bigint, -- The content; null: it is gone, or will not use the object, which has to be deleted. Once null, it stays null.
  store      text collate "C" not null, -- The store, as the setting artifact_store names it.
  key        text collate "C" not null, -- Key of the object below the prefix of the store; never used twice.
  created_at timestamp with time zone not null, -- When the first attempt to write it began (database clock).
  stored_at  timestamp with time zone, -- When it was verified, and the parts in the database were deleted (database clock); null: the content is still in the database.
  due_at     timestamp with time zone not null, -- Not before this instant is an object deleted that has no content, or never was verified: an attempt to write it may be in progress. Then, when its deletion is tried again.
  constraint artifact_objects_pkey PRIMARY KEY (id),
  constraint artifact_objects_blob_key UNIQUE (blob_id),
  constraint artifact_objects_key UNIQUE (store, key),
  constraint artifact_objects_blob_fkey FOREIGN KEY (blob_id) REFERENCES coordinator.artifact_blobs(id) ON DELETE SET NULL
);
CREATE INDEX artifact_objects_due_idx ON coordinator.artifact_objects USING btree (due_at) WHERE ((blob_id IS NULL) OR (stored_at IS NULL));

-- How many artifacts a project has, and how many bytes their contents have. Written by artifact_use.
create table coordinator.artifact_usage (
  project_id bigint not null, -- The project.
  count      bigint not null default 0, -- Artifacts: names.
  bytes      bigint not null default 0, -- Bytes of finished contents, each counted once, in the database or in an object store; those that no artifact has count until artifact_prune deletes them.
  constraint artifact_usage_pkey PRIMARY KEY (project_id),
  constraint artifact_usage_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE
);

-- Artifacts: logs, diffs, reports; the bytes are read with artifact_read. Written by artifact_put, artifact_finish, artifact_keep and artifact_delete.
create table coordinator.artifacts (
  id         bigint not null generated always as identity, -- Number of the artifact; another content of its name keeps it.
  project_id bigint not null, -- The project.
  session_id bigint, -- The session that it belongs to and ends with; null: it belongs to the project.
  name       text collate "C" not null, -- Name in the project or session; segments are separated by /. Ordered by bytes.
  media_type text not null, -- What the bytes are, such as text/plain; charset=utf-8.
  bytes      bigint not null, -- Size of the content.
  sha256     text not null, -- SHA-256 of the content, in hexadecimal.
  kept       boolean not null default false, -- Whether retention leaves it.
  actor      text not null, -- Who stored the present content.
  created_at timestamp with time zone not null, -- When the name was first used (database clock).
  updated_at timestamp with time zone not null, -- When the present content was stored (database clock).
  trim_at    timestamp with time zone, -- When artifact_expire looks at it next; null: never.
  blob_id    bigint not null, -- The content.
  constraint artifacts_pkey PRIMARY KEY (id),
  constraint artifacts_key UNIQUE NULLS NOT DISTINCT (project_id, name, session_id),
  constraint artifacts_blob_fkey FOREIGN KEY (blob_id) REFERENCES coordinator.artifact_blobs(id) ON DELETE CASCADE,
  constraint artifacts_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint artifacts_session_fkey FOREIGN KEY (session_id) REFERENCES coordinator.sessions(id) ON DELETE CASCADE,
  constraint artifacts_name CHECK (((length(name) >= 1) AND (length(name) <= 512)))
);
CREATE INDEX artifacts_blob_idx ON coordinator.artifacts USING btree (blob_id);
CREATE INDEX artifacts_session_idx ON coordinator.artifacts USING btree (session_id, name);
CREATE INDEX artifacts_trim_at_idx ON coordinator.artifacts USING btree (trim_at) WHERE (trim_at IS NOT NULL);

-- Where the chains of audit trails begin of which retention has removed entries. An entry of the trail says the same. Written by log_trim.
create table coordinator.audit_anchors (
  log_id bigint not null, -- The log of the trail.
  seq    bigint not null, -- Number of the last entry that was removed.
  hash   bytea not null, -- Its hash.
  constraint audit_anchors_pkey PRIMARY KEY (log_id),
  constraint audit_anchors_log_id_fkey FOREIGN KEY (log_id) REFERENCES coordinator.logs(id) ON DELETE CASCADE
);

-- The policy of a project as of the last event that was copied: what happened before a change is audited by the former policy. Written by audit_copy.
create table coordinator.audit_applied (
  project_id bigint not null, -- The project.
  pattern    text, -- Its topics as a regular expression; null: none.
  constraint audit_applied_pkey PRIMARY KEY (project_id),
  constraint audit_applied_project_id_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE
);

-- How far the log of events was copied into the audit trails. One row. Written by audit_copy.
create table coordinator.audit_cursor (
  only_row  boolean not null default true, -- Always true.
  seq       bigint not null, -- Events up to this number were copied, or are not audited.
  copied_at timestamp with time zone not null, -- When that was so (database clock).
  late      jsonb not null default '{}'::jsonb, -- Projects whose trails could not be written, and the number up to which their events were copied.
  constraint audit_cursor_pkey PRIMARY KEY (only_row),
  constraint audit_cursor_only_row CHECK (only_row)
);

-- Which events of a project are audited, where that is not the default. Written by audit_set and audit_reset.
create table coordinator.audit_policies (
  project_id bigint not null, -- The project.
  topics     text[] not null, -- The topics; none: only what is always audited.
  actor      text not null, -- Who set it.
  updated_at timestamp with time zone not null, -- When (database clock).
  constraint audit_policies_pkey PRIMARY KEY (project_id),
  constraint audit_policies_project_id_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE
);

-- The newest 1,000 backups of this database. Written by backup_record, backup_verified and backup_restored.
create table coordinator.backups (
  backup       text collate "C" not null, -- Name of the backup.
  tool         text not null, -- What made it: dump (coordinator backup create), or another program, such as pgbackrest.
  started_at   timestamp with time zone not null, -- When it began: a restore brings back what had been committed then (database clock).
  ended_at     timestamp with time zone not null, -- When it was recorded as complete, or as failed (database clock).
  bytes        bigint, -- Its size; null: unknown.
  error        text, -- Why it failed; null: it is complete.
  verified_at  timestamp with time zone, -- When it was last restored and compared (database clock).
  verify_error text, -- What differed then, or why it could not be restored; null: nothing.
  restored_at  timestamp with time zone, -- When this database was restored from it (database clock).
  constraint backups_pkey PRIMARY KEY (backup)
);

-- What each agent has been told of; the directives are in directive_receipts. Read briefings_read. Written by briefing_read, briefing_subscribe and briefing_prune.
create table coordinator.briefings (
  project_id bigint not null, -- The project. Not a foreign key: all writers would lock its row.
  agent_name text collate "C" not null, -- Name of the agent; it stays the same when the agent registers again.
  patterns   text[] not null default '{}'::text[], -- Patterns of the keys of signals that it watches; * stands for any text.
  told       jsonb not null default '{}'::jsonb, -- Version of each watched signal of which it was told, by key.
  read_at    timestamp with time zone not null, -- When it last read a briefing with news (database clock).
  constraint briefings_pkey PRIMARY KEY (project_id, agent_name)
);
CREATE INDEX briefings_read_at_idx ON coordinator.briefings USING btree (read_at);

-- What doctor_run examines. The files of sql/functions/doctor insert the rows; doctor_<name> is the function that looks.
create table coordinator.checks (
  ordinal  bigint not null generated always as identity, -- Order of declaration, in which they are examined.
  name     text collate "C" not null, -- Name of the check.
  warning  double precision, -- From this value on, a finding is a warning; null: the check has no threshold.
  critical double precision, -- From this value on, a finding is critical; less than warning where small values are bad.
  unit     text not null, -- Unit of the thresholds; empty for plain numbers.
  fix      text, -- What doctor_fix does about it; null: nothing that is sure to destroy nothing.
  meaning  text not null, -- What is examined.
  constraint checks_pkey PRIMARY KEY (name)
);

-- Jobs that are enqueued at times that recur.
create table coordinator.crons (
  project_id   bigint not null, -- The project.
  name         text collate "C" not null, -- Name of the cron.
  schedule     text not null, -- Minute, hour, day, month and weekday.
  zone         text not null, -- Time zone of the schedule.
  missed       text not null, -- What follows when times were missed: skip them, fire once for all of them, or fire for each.
  job          jsonb not null, -- The job, as an object of job_enqueue_many; {fire_at} in it stands for the time.
  next_at      timestamp with time zone not null, -- The first time for which it has not fired.
  due_at       timestamp with time zone, -- When the loop looks at it: next_at, or later after an error; null: it is paused.
  last_at      timestamp with time zone, -- The last time for which it fired.
  last_job     uuid, -- The job of that time.
  error        text, -- Why the job of next_at could not be enqueued; it is tried again every minute.
  paused_at    timestamp with time zone, -- When it was paused; null: it is not.
  paused_by    text, -- Who paused it.
  pause_reason text, -- Why it was paused.
  actor        text not null, -- Who created it or last changed it.
  created_at   timestamp with time zone not null, -- When it was created.
  updated_at   timestamp with time zone not null, -- When it was last changed.
  constraint crons_pkey PRIMARY KEY (project_id, name),
  constraint crons_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint crons_missed CHECK ((missed = ANY (ARRAY['skip'::text, 'once'::text, 'all'::text])))
);
CREATE INDEX crons_due_idx ON coordinator.crons USING btree (due_at);

-- Who acknowledged which directive. Written by directive_acknowledge.
create table coordinator.directive_receipts (
  directive_id    bigint not null, -- See directives.
  agent           text collate "C" not null, -- Name of the agent.
  status          text not null, -- seen, then done or refused.
  reason          text, -- Why it was refused, or a remark on done.
  seen_at         timestamp with time zone not null, -- When it was first acknowledged (database clock).
  acknowledged_at timestamp with time zone not null, -- When the current status was set (database clock).
  constraint directive_receipts_pkey PRIMARY KEY (directive_id, agent),
  constraint directive_receipts_directive_fkey FOREIGN KEY (directive_id) REFERENCES coordinator.directives(id) ON DELETE CASCADE,
  constraint directive_receipts_status CHECK ((status = ANY (ARRAY['seen'::text, 'done'::text, 'refused'::text])))
);

-- Instructions from managers to agents. Written by directive_send, directive_revoke and directive_expire; pruned some time after they end.
create table coordinator.directives (
  id          bigint not null generated always as identity, -- Number of the directive, in the order of sending.
  project_id  bigint not null, -- See projects.
  to_agent    text collate "C", -- Name of the agent that it addresses.
  to_role     text collate "C", -- Role of the agents that it addresses.
  to_job      uuid, -- Job whose worker it addresses. All null: everyone in the project, now or later.
  body        text not null, -- The text; at most 65,536 characters.
  data        jsonb not null default '{}'::jsonb, -- A JSON object for programs; may be empty.
  priority    smallint not null, -- -100 to 100; higher comes first in an inbox, then in the order of sending.
  key         text collate "C", -- A newer directive with the same key and target supersedes the older; may be null.
  status      text not null, -- open, revoked, superseded or expired.
  reason      text, -- Why it was revoked; may be null.
  actor       text not null, -- Who sent it: the name of an agent or of a database role.
  sent_at     timestamp with time zone not null, -- When it was sent (database clock).
  ended_at    timestamp with time zone, -- When it stopped being open.
  expires_at  timestamp with time zone not null, -- No agent receives it after this.
  traceparent text default coordinator.traceparent(), -- The W3C trace context of the call that sent it; null: there is none.
  constraint directives_pkey PRIMARY KEY (id),
  constraint directives_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint directives_body CHECK (((length(body) >= 1) AND (length(body) <= 65536))),
  constraint directives_ended CHECK (((status = 'open'::text) = (ended_at IS NULL))),
  constraint directives_status CHECK ((status = ANY (ARRAY['open'::text, 'revoked'::text, 'superseded'::text, 'expired'::text]))),
  constraint directives_target CHECK ((num_nonnulls(to_agent, to_role, to_job) <= 1))
);
CREATE INDEX directives_ended_at_idx ON coordinator.directives USING btree (ended_at) WHERE (status <> 'open'::text);
CREATE INDEX directives_expires_at_idx ON coordinator.directives USING btree (expires_at) WHERE (status = 'open'::text);
CREATE INDEX directives_job_idx ON coordinator.directives USING btree (to_job) WHERE ((status = 'open'::text) AND (to_job IS NOT NULL));
CREATE UNIQUE INDEX directives_key_idx ON coordinator.directives USING btree (project_id, key, COALESCE(('a'::text || to_agent), ('r'::text || to_role), ('j'::text || to_job), ''::text)) WHERE ((status = 'open'::text) AND (key IS NOT NULL));
CREATE INDEX directives_open_idx ON coordinator.directives USING btree (project_id, ((- priority)), id) WHERE (status = 'open'::text);
CREATE INDEX directives_project_idx ON coordinator.directives USING btree (project_id, id);

-- Embeddings that callers gave for documents. Only a search by embedding needs the extension vector.
create table coordinator.document_embeddings (
  document_id bigint not null, -- The document.
  project_id  bigint not null, -- Its project.
  kind        text collate "C" not null, -- Its kind: memory or knowledge.
  updated_at  timestamp with time zone not null, -- When its latest version was written.
  fields      tsvector not null, -- The lexemes of document_words that begin with U+0001.
  digest      text not null, -- Hash of the text of which it is the embedding. A version with another text deletes the row.
  embedding   real[] not null, -- The numbers, in single precision.
  constraint document_embeddings_pkey PRIMARY KEY (document_id),
  constraint document_embeddings_document_fkey FOREIGN KEY (document_id) REFERENCES coordinator.documents(id) ON DELETE CASCADE
);
CREATE INDEX document_embeddings_recent_idx ON coordinator.document_embeddings USING btree (project_id, kind, updated_at DESC);

-- Versions of documents, written once. The newest are kept, as many as document_versions_kept says.
create table coordinator.document_versions (
  document_id bigint not null, -- The document.
  version     bigint not null, -- Number of the version.
  epoch       integer not null, -- Epoch in which it was written: with the version, it names one content for ever.
  actor       text not null, -- Who wrote it.
  written_at  timestamp with time zone not null, -- When it was written.
  expires_at  timestamp with time zone, -- When the document expires that has this version; null: never.
  value       jsonb, -- The value, with U+FFFD for what jsonb refuses; null: the document was deleted.
  raw         json, -- The text as it was given, where jsonb refuses or rewrites a string or a number.
  constraint document_versions_pkey PRIMARY KEY (document_id, version)
);

-- Words of the documents that can be searched, beside the narrow headers that every put updates.
create table coordinator.document_words (
  document_id bigint not null, -- The document.
  project_id  bigint not null, -- Its project.
  kind        text collate "C" not null, -- Its kind: memory or knowledge.
  updated_at  timestamp with time zone not null, -- When its latest version was written.
  words       tsvector not null, -- Its words, and a lexeme for its project and kind and for each of its fields, which begins with U+0001.
  constraint document_words_pkey PRIMARY KEY (document_id),
  constraint document_words_document_fkey FOREIGN KEY (document_id) REFERENCES coordinator.documents(id) ON DELETE CASCADE
);
CREATE INDEX document_words_recent_idx ON coordinator.document_words USING btree (project_id, kind, updated_at DESC);
CREATE INDEX document_words_words_idx ON coordinator.document_words USING gin (words) WITH (gin_pending_list_limit='256');

-- Headers of documents. The lock of the header is that of the document: whoever writes a version updates it first.
create table coordinator.documents (
  id         bigint not null generated always as identity, -- Number of the document, of which its versions have a copy.
  project_id bigint not null, -- The project. Not a foreign key: all writers would lock its row.
  kind       text collate "C" not null, -- What the document is: state, todo, features, or a kind of the callers.
  key        text collate "C" not null, -- Key, unique in its project and kind.
  session_id bigint, -- The session that it belongs to; null: none.
  version    bigint not null, -- Number of the latest version: 1, 2, 3. 0: never committed.
  epoch      integer not null, -- Epoch in which the latest version was written.
  kept       boolean not null default false, -- True: retention does not take it.
  actor      text not null, -- Who wrote the latest version.
  created_at timestamp with time zone not null, -- When it was first put, or first put after it was absent.
  updated_at timestamp with time zone not null, -- When the latest version was written.
  expires_at timestamp with time zone, -- From then on it counts as absent; of one that was deleted: when retention takes it; null: never.
  deleted    boolean not null default false, -- True: it was deleted. The row stays until retention takes it, so that no version is given twice.
  constraint documents_pkey PRIMARY KEY (id),
  constraint documents_key UNIQUE (project_id, kind, key)
);
CREATE INDEX documents_expires_idx ON coordinator.documents USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX documents_session_idx ON coordinator.documents USING btree (session_id) WHERE (session_id IS NOT NULL);

-- Entries of logs, written once by log_append. Read entries_live or log_read.
create table coordinator.entries (
  log_id     bigint not null, -- The log.
  seq        bigint not null, -- Number within the log.
  uid        text collate "C", -- The caller's name for it, unique within the log: a repeated append does nothing.
  role       text collate "C", -- Whose it is in a conversation, such as user or assistant; null: not said.
  tokens     integer, -- How many tokens of a model it takes; null: not known.
  epoch      integer not null, -- The epoch in which it was written: 32 bits of epoch_id. Number and epoch name one content for ever.
  needs_seq  bigint, -- The earliest entry without which it is of no use, such as the call of a tool's result; null: none.
  links      text[], -- What ties it to other entries, such as ids of calls; null: nothing.
  kept       boolean not null default false, -- True: retention leaves it.
  actor      text not null, -- Who appended it.
  created_at timestamp with time zone not null, -- When it was appended (database clock); never less than that of an earlier entry.
  data       json not null, -- The content, as exact text; where that has NUL or a lone surrogate, which no SQL function can read, U+FFFD stands in its place.
  raw        text, -- The exact text where it differs from data; else null.
  hash       bytea, -- Of an entry of the audit trail: the hash of its content and of the hash before it, see functions/audit.sql; else null.
  constraint entries_pkey PRIMARY KEY (log_id, seq) INCLUDE (role, tokens, needs_seq)
);
CREATE INDEX entries_kept_idx ON coordinator.entries USING btree (log_id, seq) WHERE kept;
CREATE INDEX entries_links_idx ON coordinator.entries USING btree (log_id, seq) WHERE (links IS NOT NULL);
CREATE UNIQUE INDEX entries_uid_key ON coordinator.entries USING btree (log_id, uid) WHERE (uid IS NOT NULL);

-- The epochs of the log that have ended; the present one is in relay. Written by relay_recover, deleted by event_prune.
create table coordinator.epochs (
  number   bigint not null generated always as identity, -- Their order.
  id       text collate "C" not null, -- First part of the cursors of this epoch.
  last_seq bigint not null, -- The last event that the present log shares with this epoch: a cursor of it up to here continues exactly, a later one receives a reset.
  ended_at timestamp with time zone not null, -- When the next epoch began (database clock).
  constraint epochs_pkey PRIMARY KEY (number),
  constraint epochs_id_key UNIQUE (id)
);

-- The numbers of events: a chunk holds whole transactions, ordered by (xid, id), and numbers them from first_seq on. Appended by relay_step, deleted by event_prune.
create table coordinator.event_chunks (
  first_seq  bigint not null, -- Number of its first event.
  last_seq   bigint not null, -- Number of its last event.
  xids       xid8[] not null, -- Its transactions, ascending.
  first_id   bigint not null, -- Smallest id of its events.
  last_id    bigint not null, -- Greatest id of its events.
  more       boolean not null, -- True: the next chunk continues its only transaction.
  base       pg_snapshot not null, -- Every event that this snapshot sees has a number.
  base_id    bigint not null, -- Events of transactions from xmax of base on have greater ids.
  read_id    bigint not null, -- Last id before step_xid was assigned: transactions after step_xid have greater ids.
  step_xid   xid8, -- The transaction of the step; null in chunks of another cluster.
  stamped_at timestamp with time zone not null, -- When its events were numbered (database clock); retention goes by this.
  constraint event_chunks_pkey PRIMARY KEY (first_seq),
  constraint event_chunks_seq CHECK ((last_seq >= first_seq))
);
CREATE INDEX event_chunks_first_id_idx ON coordinator.event_chunks USING btree (first_id);
CREATE INDEX event_chunks_step_xid_idx ON coordinator.event_chunks USING btree (step_xid);

-- Every type of event. Types and payloads are API. Each noun's function file inserts its own rows; tests compare them with the functions.
create table coordinator.event_types (
  ordinal bigint not null generated always as identity, -- Order of declaration: by noun, then as the noun's file lists them.
  type    text collate "C" not null, -- Noun and past participle; a reader's topic is a type or a pattern such as signal.*
  key     text not null, -- What the event's key names.
  data    text[] not null, -- Names in the event's data.
  meaning text not null, -- What happened.
  constraint event_types_pkey PRIMARY KEY (type)
);

-- The event log, partitioned by id. Events are inserted in the transaction of the change and never changed; event_prune drops whole partitions. event_chunks numbers them; read them with events_since.
create table coordinator.events (
  xid         xid8 not null default pg_current_xact_id(), -- The writing transaction.
  id          bigint not null default 
CASE
    WHEN (pg_sequence_last_value('coordinator.relay_bell'::regclass) = 0) THEN nextval('coordinator.event_ids'::regclass)
    ELSE coordinator.event_ring()
END, -- Order within the transaction. The default also rings the relay's doorbell if the relay sleeps.
  type        text not null, -- See event_types.
  project     text not null, -- Name of the project.
  key         text, -- What the event is about: the key of a signal, the id of a directive or agent, the name of a project.
  actor       text not null, -- Who did it: the name of an agent or of a database role.
  at          timestamp with time zone not null, -- When it happened (database clock).
  data        jsonb not null, -- See event_types.
  role        text default SESSION_USER, -- The database role that logged in (session_user), such as that of the daemon; no caller chooses it. Null before there was this column.
  address     inet default inet_client_addr(), -- From where it connected to the database; null: through a unix socket.
  origin      text default coordinator.origin(), -- What the role says about the origin of the call, as JSON: a daemon gives token (id) and name of the token, address (of the client), process or loop. Null: nothing. Only that of a role that is trusted with this is worth anything.
  traceparent text default coordinator.traceparent() -- The W3C trace context of the call; null: there is none.
) partition by RANGE (id);
CREATE INDEX events_xid_idx ON ONLY coordinator.events USING btree (xid, id);

-- The content of files as each agent, and each owner below it, last saw it. Read file_views. Written by file_record, file_edit and file_prune.
create table coordinator.files_seen (
  project_id bigint not null, -- The project. Not a foreign key: all writers would lock its row.
  path       text collate "C" not null, -- The file, as locks spell it.
  agent_name text collate "C" not null, -- Name of the agent; it stays the same when the agent registers again.
  owner      text collate "C" not null, -- Who saw it below the agent, see locks; empty: the agent itself.
  hash       text collate "C", -- Hash of the content; -: there was no such file; null: unknown.
  seen_at    timestamp with time zone not null, -- When it read or wrote that content (database clock).
  wrote_at   timestamp with time zone, -- When it last wrote the file; null: it never did.
  reading    boolean not null default false, -- True: a read has begun and is not reported as done.
  told       text collate "C", -- Hash of the changed content of which file_edit has told it; null: of none.
  constraint files_seen_pkey PRIMARY KEY (project_id, path, agent_name, owner),
  constraint files_seen_hash CHECK ((length(hash) <= 128))
);
CREATE INDEX files_seen_at_idx ON coordinator.files_seen USING btree (seen_at);

-- Responses to requests with an Idempotency-Key, written in the transaction of the change by idempotency_claim and idempotency_store, deleted by idempotency_prune.
create table coordinator.idempotency_keys (
  project    text collate "C" not null, -- Name of the project; empty for requests without one.
  key        text collate "C" not null, -- The caller's key, at most 200 characters.
  request    text not null, -- Digest of the request: the key is valid for this request only.
  response   text, -- The response, JSON as it was sent; null only within the transaction that claimed the key.
  created_at timestamp with time zone not null, -- When the key was claimed (database clock).
  expires_at timestamp with time zone not null, -- The key can be claimed again after this (database clock).
  caller     text collate "C" not null default ''::text, -- Whose key it is: the id of a token; empty where access is open.
  position   text, -- Position of the transaction that made the change, see position_now.
  constraint idempotency_keys_pkey PRIMARY KEY (project, caller, key),
  constraint idempotency_keys_key CHECK (((length(key) >= 1) AND (length(key) <= 200)))
);
CREATE INDEX idempotency_keys_expires_at_idx ON coordinator.idempotency_keys USING btree (expires_at);

-- Tokens of rates. A claim that takes some has the row to the end of its transaction.
create table coordinator.job_buckets (
  limit_id bigint not null, -- The limit.
  level    double precision not null, -- Tokens that were there at level_at.
  level_at timestamp with time zone not null, -- When the level was computed.
  constraint job_buckets_pkey PRIMARY KEY (limit_id)
);

-- State of budgets. Claims that reserve of a budget, and reports of what was spent, have its row to the end of their transaction.
create table coordinator.job_budgets (
  limit_id     bigint not null, -- The limit.
  lacking      bigint, -- What the job needed that last had to wait for it; null: none had to.
  exhausted_at timestamp with time zone, -- Start of the last period in which it was exhausted.
  constraint job_budgets_pkey PRIMARY KEY (limit_id)
);

-- Cancellations, pauses and resumptions of trees that were too large for one call, until the loop has changed the rest.
create table coordinator.job_changes (
  id           bigint not null generated always as identity, -- Number of the change.
  project_id   bigint not null, -- Project of the jobs.
  jobs         uuid[] not null, -- These jobs and all jobs below them are changed.
  reason       text, -- Why, for workers, people and the history.
  actor        text not null, -- Who changes them.
  requested_at timestamp with time zone not null, -- When the change was requested.
  change       text not null default 'cancel'::text, -- cancel, pause or resume.
  tree         boolean not null default true, -- Whether the jobs below are changed as well.
  paused       jsonb, -- Of a pause: what jobs_open.paused will say.
  root_id      uuid, -- Of a pause or a resumption: the root of the tree; changes of one tree take place in order.
  constraint job_changes_pkey PRIMARY KEY (id),
  constraint job_changes_change_check CHECK ((change = ANY (ARRAY['cancel'::text, 'pause'::text, 'resume'::text])))
);
CREATE INDEX job_changes_project_idx ON coordinator.job_changes USING btree (project_id);

-- What jobs reserve and spend of budgets: a row for each running attempt and budget. The end of the attempt settles it; claims add settled rows up.
create table coordinator.job_charges (
  limit_id  bigint not null, -- The budget.
  period_at timestamp with time zone not null, -- Start of the period in which the attempt was claimed; -infinity for a budget for ever.
  job_id    uuid, -- The job that runs; null: settled.
  hash      bigint, -- Hash of project and key, if each key has a budget of its own.
  reserved  bigint not null default 0, -- What its claim reserved; 0 when settled.
  spent     bigint -- What the attempt reported with job_spend; null: nothing.
);
CREATE UNIQUE INDEX job_charges_job_idx ON coordinator.job_charges USING btree (job_id, limit_id) WHERE (job_id IS NOT NULL);
CREATE INDEX job_charges_period_idx ON coordinator.job_charges USING btree (limit_id, period_at, hash);

-- Output of jobs that have not ended. Inserted once, and moved to jobs_ended at the end of the job.
create table coordinator.job_chunks_open (
  job_id     uuid not null, -- The job.
  seq        integer not null, -- Number within the output of the job, from 1, without gaps.
  attempt    smallint not null, -- The attempt that wrote it.
  chunk      jsonb not null, -- Any JSON value.
  written_at timestamp with time zone not null, -- When it was written.
  bytes      bigint not null, -- Output of the job up to this chunk, as text.
  constraint job_chunks_open_pkey PRIMARY KEY (job_id, seq)
);

-- Classes of jobs: what decides which workers can run a job. Few, and static.
create table coordinator.job_classes (
  id         bigint not null generated always as identity, -- Number of the class.
  project_id bigint not null, -- The project.
  queue      text collate "C" not null, -- Name of the queue.
  type       text collate "C" not null, -- Type of the jobs.
  labels     text[] collate "C" not null default '{}'::text[], -- Labels that a worker needs, sorted.
  limits     text[] collate "C" not null default '{}'::text[], -- Names of the limits that its jobs ask for, sorted.
  limit_ids  bigint[] not null default '{}'::bigint[], -- The limits that apply to its jobs, by number: those that they ask for, and those of the queue and the type.
  keyed      boolean not null default false, -- Whether one of the limits is per key.
  locks      boolean not null default false, -- Whether the jobs have locks: other claims need not look.
  arranging  boolean not null default false, -- Whether some of its queued jobs have their places by an earlier policy, see job_placements: claims look with and without lanes.
  constraint job_classes_pkey PRIMARY KEY (id),
  constraint job_classes_key UNIQUE (project_id, queue, type, labels, limits, locks),
  constraint job_classes_queue_fkey FOREIGN KEY (project_id, queue) REFERENCES coordinator.queues(project_id, name) ON DELETE CASCADE
);
CREATE INDEX job_classes_type_idx ON coordinator.job_classes USING btree (project_id, type);

-- Dedupe keys: the job that answers for a key.
create table coordinator.job_dedupes (
  project_id bigint not null, -- The project.
  key        text collate "C" not null, -- The key.
  job_id     uuid not null, -- The job.
  expires_at timestamp with time zone, -- End of the window; null: it ends with the job.
  failed     boolean not null default false, -- Whether the job answers for the key even if it failed.
  constraint job_dedupes_pkey PRIMARY KEY (project_id, key)
);
CREATE INDEX job_dedupes_expires_idx ON coordinator.job_dedupes USING btree (expires_at);

-- What jobs still wait for: a row for each job whose end another one waits for.
create table coordinator.job_dependencies (
  after_id uuid not null, -- The job whose end is waited for.
  job_id   uuid not null, -- The job that waits.
  constraint job_dependencies_pkey PRIMARY KEY (after_id, job_id)
);
CREATE INDEX job_dependencies_job_idx ON coordinator.job_dependencies USING btree (job_id);

-- Keys of limits per key that have lanes, or whose bucket is not full. Claims lock a row to start jobs of the key.
create table coordinator.job_keys (
  limit_id     bigint not null, -- The limit.
  hash         bigint not null, -- Hash of project and key.
  key          text collate "C", -- The key; null until a rate or budget was used.
  level        double precision, -- Tokens that were in the bucket of the key at level_at; null: it is full, or the limit is not a rate.
  level_at     timestamp with time zone, -- When the level was computed.
  due_at       timestamp with time zone, -- When the key can pay for its next job; null: it can, or nobody knows; infinity: when an attempt ends that frees some.
  parked       boolean not null default false, -- Whether lanes of the key have left the line until due_at.
  exhausted_at timestamp with time zone, -- Start of the last period in which the budget of the key was exhausted.
  constraint job_keys_pkey PRIMARY KEY (limit_id, hash)
);
CREATE INDEX job_keys_due_idx ON coordinator.job_keys USING btree (limit_id, due_at) WHERE (due_at IS NOT NULL);

-- Lanes: the keys of a class in a fair queue, or with a limit per key, that have jobs to be claimed. The first job inserts one, and the claim that finds it empty deletes it.
create table coordinator.job_lanes (
  id       bigint not null generated always as identity, -- Number of the lane; 0 stands for no lane.
  class_id bigint not null, -- The class.
  key      text collate "C" not null, -- The key; empty for jobs without one.
  weight   integer not null default 1, -- How many shares of a turn it gets.
  hash     bigint, -- Hash of project and key, if each key has slots of its own.
  constraint job_lanes_pkey PRIMARY KEY (id),
  constraint job_lanes_key UNIQUE (class_id, key)
);
CREATE INDEX job_lanes_hash_idx ON coordinator.job_lanes USING btree (hash) WHERE (hash IS NOT NULL);

-- Limits that a claim lacked: whoever frees some of them wakes workers, and deletes the row.
create table coordinator.job_limit_waits (
  limit_id bigint not null, -- The limit.
  due_at   timestamp with time zone, -- When the loop wakes workers; null: when there is a free permit.
  classes  bigint[] not null default '{}'::bigint[], -- With slots per key: classes of which no lane was in the line; the loop wakes workers when one is.
  constraint job_limit_waits_pkey PRIMARY KEY (limit_id)
);

-- Limits of what runs: the number of jobs at once (slots), tokens per interval (rate), or a sum (budget).
create table coordinator.job_limits (
  id           bigint not null generated always as identity, -- Number of the limit.
  project_id   bigint not null, -- The project.
  name         text collate "C" not null, -- Name of the limit, by which jobs may ask for it.
  kind         text collate "C" not null, -- slots, rate or budget.
  queue        text collate "C", -- It applies to the jobs of this queue; null: of all.
  type         text collate "C", -- It applies to the jobs of this type; null: of all. Without queue and type, it applies to jobs that name it.
  per_key      boolean not null default false, -- Whether each key has a limit of its own. Jobs without a key then have none.
  tree         uuid, -- It applies to the jobs of the tree that has this root; null: to those of no tree.
  slots        integer, -- Maximum of jobs that run at once.
  surplus      integer not null default 0, -- Permits beyond slots: it was lowered while more ran. Claims retire them.
  rate         double precision, -- Tokens per interval; a job takes one, or what it says it costs.
  per          interval, -- The interval of the rate.
  burst        integer, -- Maximum of tokens that are saved up.
  budget       bigint, -- Maximum sum in a period, in units of your choice: tokens, micro-dollars, calls.
  period       text, -- hour, day (both in UTC) or ever.
  reserve      bigint, -- What a claim reserves for a job that does not say what it costs.
  on_exhausted text, -- What happens to running jobs when the budget is exhausted: nothing (stop: no job starts), or cancel.
  held_until   timestamp with time zone, -- No job that needs it starts before; null: it is not held.
  held_by      text, -- Who held it.
  hold_reason  text, -- Why it is held.
  actor        text not null, -- Who created it or last changed it.
  created_at   timestamp with time zone not null, -- When it was first set.
  updated_at   timestamp with time zone not null, -- When it was last changed.
  constraint job_limits_pkey PRIMARY KEY (id),
  constraint job_limits_key UNIQUE (project_id, name),
  constraint job_limits_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint job_limits_kind CHECK ((kind = ANY (ARRAY['slots'::text, 'rate'::text, 'budget'::text]))),
  constraint job_limits_on_exhausted CHECK ((on_exhausted = ANY (ARRAY['stop'::text, 'cancel'::text]))),
  constraint job_limits_period CHECK ((period = ANY (ARRAY['hour'::text, 'day'::text, 'ever'::text])))
);
CREATE INDEX job_limits_keys_idx ON coordinator.job_limits USING btree (project_id) WHERE (per_key AND (kind <> 'slots'::text));
CREATE UNIQUE INDEX job_limits_tree_idx ON coordinator.job_limits USING btree (project_id, tree, kind) WHERE (tree IS NOT NULL);

-- Jobs that have waited long for a lock: later jobs do not take what overlaps it before them. A row that has lapsed means nothing.
create table coordinator.job_lock_turns (
  project_id bigint not null, -- The project.
  resource   text collate "C" not null, -- What the job wants and others have.
  job_id     uuid not null, -- The job.
  since      timestamp with time zone not null, -- Since when it could have started: of several, the earliest goes first.
  until      timestamp with time zone not null, -- When its turn lapses, unless it looks for the lock again before.
  constraint job_lock_turns_pkey PRIMARY KEY (project_id, resource)
);
CREATE INDEX job_lock_turns_since_idx ON coordinator.job_lock_turns USING btree (project_id, since, job_id);

-- Jobs that wait for a lock: what wakes them. A job has one row, whatever else is in its way; it ends with the row in jobs_waiting.
create table coordinator.job_lock_waits (
  job_id     uuid not null, -- The job.
  project_id bigint not null, -- The project.
  blocker    text collate "C" not null, -- The resource whose release wakes it: of the lock or ticket in its way or, once that has gone, what it wants itself.
  wanted     text collate "C" not null, -- Which of its own resources overlaps that.
  class_id   bigint not null, -- Its class: of each, the first job in order is woken.
  rank       bigint not null, -- Order within the class, see job_rank.
  constraint job_lock_waits_pkey PRIMARY KEY (job_id),
  constraint job_lock_waits_job_fkey FOREIGN KEY (job_id) REFERENCES coordinator.jobs_waiting(id) ON DELETE CASCADE
);
CREATE INDEX job_lock_waits_blocker_idx ON coordinator.job_lock_waits USING btree (project_id, blocker, wanted, class_id, rank, job_id);

-- The line of the lanes of a class: a permit for each. Rows are inserted and deleted, never updated.
create table coordinator.job_permits (
  class_id bigint not null, -- The class.
  turn     bigint not null, -- Place in the line.
  lane_id  bigint not null, -- The lane that may be served.
  constraint job_permits_pkey PRIMARY KEY (class_id, turn)
);

-- Classes whose queued jobs get other places, batch by batch (queue_place). The row is deleted when all have theirs.
create table coordinator.job_placements (
  class_id     bigint not null, -- The class.
  ageings      interval[] not null, -- The ageing of earlier policies, by which some jobs still have their places; null in it: strict priority.
  began_at     timestamp with time zone not null, -- When the policy was changed.
  total_count  bigint, -- Queued jobs when the first batch was placed; null: none was yet.
  placed_count bigint not null default 0, -- Jobs that were looked at since.
  lane_id      bigint not null default '-1'::integer, -- Lane of the last job that was looked at.
  rank         bigint not null default 0, -- Its rank.
  id           uuid not null default '00000000-0000-0000-0000-000000000000'::uuid, -- Its id.
  again        boolean not null default false, -- Whether a job was passed over, since another transaction had it: the class is looked at again.
  constraint job_placements_pkey PRIMARY KEY (class_id),
  constraint job_placements_class_fkey FOREIGN KEY (class_id) REFERENCES coordinator.job_classes(id) ON DELETE CASCADE
);

-- Free permits of slots. A claim deletes one for each job, and the end of the attempt inserts another, so with those that run they are always as many as the slots.
create table coordinator.job_slots (
  limit_id bigint not null, -- The limit.
  turn     bigint not null, -- Order in which permits are taken.
  constraint job_slots_pkey PRIMARY KEY (limit_id, turn)
);

-- Finished steps of jobs that have not ended. Inserted once, and moved to jobs_ended at the end of the job. Read them with the view job_steps.
create table coordinator.job_steps_open (
  job_id      uuid not null, -- The job.
  place       integer not null, -- Order in which its steps finished, from 1.
  name        text collate "C" not null, -- Name of the step.
  ordinal     integer not null, -- Which of its steps of this name, from 1.
  kind        text not null, -- step: what a worker did; wait: how a wait ended; answer: the answer of a question.
  result      jsonb not null, -- What it returned.
  fence       bigint not null, -- Fence of the attempt that finished it, or that began the wait.
  actor       text not null, -- Who finished it: the worker, who answered, or coordinator.
  finished_at timestamp with time zone not null, -- When it finished.
  bytes       bigint not null, -- Results of the job up to this one, as text.
  constraint job_steps_open_pkey PRIMARY KEY (job_id, place),
  constraint job_steps_open_key UNIQUE (job_id, name, ordinal),
  constraint job_steps_open_kind CHECK ((kind = ANY (ARRAY['step'::text, 'wait'::text, 'answer'::text])))
);

-- Jobs that wait for a limit of their tree. A row ends with that in jobs_waiting.
create table coordinator.job_tree_waits (
  job_id   uuid not null, -- The job.
  limit_id bigint not null, -- The limit: of several, the first that had too little left.
  class_id bigint not null, -- Its class: of each, the first jobs in order are woken.
  rank     bigint not null, -- Order within the class, see job_rank.
  constraint job_tree_waits_pkey PRIMARY KEY (job_id),
  constraint job_tree_waits_job_fkey FOREIGN KEY (job_id) REFERENCES coordinator.jobs_waiting(id) ON DELETE CASCADE
);
CREATE INDEX job_tree_waits_limit_idx ON coordinator.job_tree_waits USING btree (limit_id, class_id, rank, job_id);

-- Where the loop that compares the log with waits is. Whoever compares locks the row.
create table coordinator.job_wait_log (
  singleton boolean not null default true, -- Always true: there is one row.
  seq       bigint not null, -- Events up to this one were compared with all waits that are not behind.
  held      jsonb not null default '{}'::jsonb, -- Outcomes of waits that could not be stored yet, since another transaction had the job or something of its project, by job.
  constraint job_wait_log_pkey PRIMARY KEY (singleton),
  constraint job_wait_log_singleton CHECK (singleton)
);

-- What jobs wait for that were suspended, or asked a question.
create table coordinator.job_waits (
  job_id     uuid not null, -- The job.
  project_id bigint not null, -- The project.
  name       text collate "C" not null, -- Name of the step that its outcome becomes.
  ordinal    integer not null, -- Which of the steps of this name.
  conditions jsonb not null, -- The conditions, as job_suspend takes them; the first that is met ends the wait.
  question   text, -- The question to be answered by a manager; null: it waits for conditions.
  options    text[], -- The possible answers; null: any.
  fallback   jsonb, -- The answer if nobody gives one until due_at; null: none.
  fence      bigint not null, -- Fence of the attempt that began the wait.
  worker     text not null, -- Name of the worker that began it.
  began_at   timestamp with time zone not null, -- When it began.
  due_at     timestamp with time zone, -- When it ends at the latest; null: never.
  after_seq  bigint not null, -- Events up to this one do not concern it.
  behind     boolean, -- Whether events between after_seq and the place of the loop have not been compared with it yet; null: no event concerns it.
  constraint job_waits_pkey PRIMARY KEY (job_id),
  constraint job_waits_job_fkey FOREIGN KEY (job_id) REFERENCES coordinator.jobs_waiting(id) ON DELETE CASCADE
);
CREATE INDEX job_waits_after_idx ON coordinator.job_waits USING btree (after_seq) WHERE (behind IS NOT NULL);
CREATE INDEX job_waits_behind_idx ON coordinator.job_waits USING btree (began_at, job_id) WHERE behind;
CREATE INDEX job_waits_due_idx ON coordinator.job_waits USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX job_waits_question_idx ON coordinator.job_waits USING btree (project_id, job_id) WHERE (question IS NOT NULL);

-- Events that may end waits: what job_wait_match finds a wait by.
create table coordinator.job_watches (
  project text collate "C" not null, -- Name of the project.
  topic   text collate "C" not null, -- Type of the event, or a pattern such as signal.*; "job": the end of a job.
  key     text collate "C" not null, -- Key of the event, or the job that ends; empty: any.
  job_id  uuid not null, -- The job that waits.
  constraint job_watches_pkey PRIMARY KEY (project, topic, key, job_id),
  constraint job_watches_job_fkey FOREIGN KEY (job_id) REFERENCES coordinator.job_waits(job_id) ON DELETE CASCADE
);
CREATE INDEX job_watches_job_idx ON coordinator.job_watches USING btree (job_id);

-- Jobs that ended, in partitions by retention (completed, all other ends) and by the day of their end. Read them with the view jobs.
create table coordinator.jobs_ended (
  id           uuid not null, -- UUID, ordered by time.
  project_id   bigint not null, -- The project.
  queue        text collate "C" not null, -- Name of the queue.
  type         text collate "C" not null, -- Type.
  key          text collate "C", -- Key by which queues are fair; may be null.
  priority     smallint not null, -- Higher comes first.
  payload      jsonb not null, -- Any JSON value.
  labels       text[] not null, -- Labels that a worker needed.
  limits       jsonb, -- Limits that it asked for by name, and what it cost of each; null: none.
  locks        text[], -- Resources that it had locked while it ran; null: none.
  max_attempts smallint not null, -- Most attempts.
  dedupe_key   text, -- Its dedupe key; may be null.
  parent_id    uuid, -- The job that enqueued it.
  retry_of     uuid, -- The ended job that it repeated.
  actor        text not null, -- Who enqueued it.
  created_at   timestamp with time zone not null, -- When it was enqueued.
  scheduled_at timestamp with time zone not null, -- When it was to start at the earliest.
  status       text not null, -- completed, failed, cancelled or expired.
  reason       text, -- Why it did not complete: error, worker_lost, stalled, deadline, crash_loop, cancelled, replaced, dependency, start_by.
  attempts     smallint not null, -- How many attempts counted.
  agent_id     uuid, -- Who ran it last.
  worker       text, -- Name of who ran it last.
  fence        bigint, -- Fence of the last attempt.
  started_at   timestamp with time zone, -- When the last attempt began.
  completed_at timestamp with time zone not null, -- When it ended.
  ended_by     text not null, -- Who ended it.
  result       jsonb, -- What the last attempt returned.
  error        text, -- Error of the last attempt.
  checkpoint   jsonb, -- What the last attempt left.
  past         jsonb, -- Earlier attempts, as an array, newest last.
  steps        jsonb, -- Finished steps, as an array, in their order; null: none.
  chunks       jsonb, -- Output, as an array, in its order; null: none.
  backoff      interval, -- Wait after the first failed attempt; null: the default.
  deadline     interval, -- Longest run of an attempt; null: a day.
  stall        interval, -- Longest time without progress; null: no limit.
  rescue       text, -- What followed an attempt that was lost; null: retry from the beginning.
  retried_as   uuid, -- The job that repeats it; may be null.
  root_id      uuid, -- The root of its tree; null: it had no parent.
  depth        smallint, -- How many jobs were above it; null: it had no parent.
  after        uuid[], -- The jobs that it started after; may be null.
  after_mode   text, -- any: it started after one of them; null: after all.
  on_failure   text, -- What followed if one of them did not complete: ignore or run; null: it was cancelled.
  awaited      boolean, -- true: other jobs waited for its end; else null.
  traceparent  text -- The W3C trace context of the call that enqueued it; null: there is none.
) partition by LIST (((status = 'completed'::text)));
CREATE INDEX jobs_ended_project_idx ON ONLY coordinator.jobs_ended USING btree (project_id, id);
CREATE INDEX jobs_ended_root_idx ON ONLY coordinator.jobs_ended USING btree (project_id, root_id, id) WHERE (root_id IS NOT NULL);

-- Jobs that become ready at an instant: scheduled, snoozed, or backing off.
create table coordinator.jobs_later (
  id       uuid not null, -- The job.
  class_id bigint not null, -- The class.
  due_at   timestamp with time zone not null, -- When it becomes ready.
  constraint jobs_later_pkey PRIMARY KEY (id)
);
CREATE INDEX jobs_later_class_idx ON coordinator.jobs_later USING btree (class_id) WHERE (class_id IS NOT NULL);
CREATE INDEX jobs_later_due_idx ON coordinator.jobs_later USING btree (due_at);

-- Jobs that have not ended, and those that are running. Inserted once and deleted at the end; only an attempt that fails updates a row.
create table coordinator.jobs_open (
  id           uuid not null, -- UUID, ordered by time.
  project_id   bigint not null, -- The project.
  class_id     bigint not null, -- Its class: project, queue, type, labels.
  queue        text collate "C" not null, -- Name of the queue.
  type         text collate "C" not null, -- Type: what a worker must have in its job_types.
  key          text collate "C", -- Key by which queues are fair; may be null.
  priority     smallint not null default 0, -- Higher comes first.
  payload      jsonb not null, -- Any JSON value.
  labels       text[] not null default '{}'::text[], -- Labels that a worker needs.
  limits       jsonb, -- Limits that it asks for by name, and what it costs of each; null: none.
  locks        text[], -- Resources that it has locked while it runs; null: none.
  max_attempts smallint not null default 3, -- Most attempts.
  backoff      interval, -- Wait after the first failed attempt, doubled by each; null: the default.
  start_by     timestamp with time zone, -- It expires unless an attempt began before.
  deadline     interval, -- Longest run of an attempt; null: a day.
  stall        interval, -- Longest time without progress; null: no limit.
  rescue       text, -- What follows an attempt that was lost: resume from the checkpoint, or fail; null: retry from the beginning.
  dedupe_key   text collate "C", -- Its key in job_dedupes.
  parent_id    uuid, -- The job that enqueued it.
  root_id      uuid, -- The root of its tree; null: it has no parent.
  depth        smallint, -- How many jobs are above it; null: it has no parent.
  after        uuid[], -- The jobs that it starts after; may be null.
  after_mode   text, -- any: it starts after one of them; null: after all.
  on_failure   text, -- What follows if one of them does not complete: ignore or run; null: it is cancelled.
  awaited      boolean not null default false, -- Whether other jobs wait for its end, or did.
  paused       jsonb, -- By whom, when and why it was paused, and whether with its tree; null: it is not.
  retry_of     uuid, -- The ended job that it repeats.
  actor        text not null, -- Who enqueued it.
  created_at   timestamp with time zone not null, -- When it was enqueued.
  scheduled_at timestamp with time zone not null, -- When it may start at the earliest.
  attempts     smallint not null default 0, -- Attempts that ended and count.
  deaths       smallint not null default 0, -- Attempts in a row whose worker died.
  checkpoint   jsonb, -- What the last attempt left for the next one.
  error        text, -- Error of the last attempt.
  past         jsonb, -- Attempts that ended, as an array, newest last.
  traceparent  text default coordinator.traceparent(), -- The W3C trace context of the call that enqueued it, which its attempts continue; null: there is none.
  constraint jobs_open_pkey PRIMARY KEY (id),
  constraint jobs_open_after_mode CHECK ((after_mode = 'any'::text)),
  constraint jobs_open_on_failure CHECK ((on_failure = ANY (ARRAY['ignore'::text, 'run'::text]))),
  constraint jobs_open_rescue CHECK ((rescue = ANY (ARRAY['resume'::text, 'fail'::text])))
);
CREATE INDEX jobs_open_key_idx ON coordinator.jobs_open USING btree (project_id, key, id) WHERE (key IS NOT NULL);
CREATE INDEX jobs_open_project_idx ON coordinator.jobs_open USING btree (project_id, id) WHERE (project_id IS NOT NULL);
CREATE INDEX jobs_open_root_idx ON coordinator.jobs_open USING btree (root_id, parent_id) WHERE (root_id IS NOT NULL);
CREATE INDEX jobs_open_start_by_idx ON coordinator.jobs_open USING btree (start_by) WHERE (start_by IS NOT NULL);

-- Jobs that can be claimed. Inserted and deleted, never updated.
create table coordinator.jobs_ready (
  class_id bigint not null, -- The class.
  lane_id  bigint not null, -- The lane; 0 where the queue is not fair.
  rank     bigint not null, -- Order within the lane, see job_rank.
  id       uuid not null, -- The job.
  constraint jobs_ready_pkey PRIMARY KEY (class_id, lane_id, rank, id)
);

-- Attempts that run: a row for each job that a worker has.
create table coordinator.jobs_running (
  id            uuid not null, -- The job.
  fence         bigint not null, -- Number of the claim; every verb of the worker must give it.
  agent_id      uuid not null, -- The worker.
  class_id      bigint not null, -- The class.
  attempt       smallint not null, -- Number of the attempt, from 1.
  started_at    timestamp with time zone not null, -- When it was claimed.
  deadline_at   timestamp with time zone not null, -- The attempt ends at this instant.
  stall_at      timestamp with time zone, -- The attempt ends at this instant without progress; null: no limit.
  request_id    uuid, -- Id of the claim's request.
  slots         bigint[], -- Limits of which it has a slot; null: none.
  key_hash      bigint, -- Hash of project and key, if each key has slots of its own.
  charged       boolean not null default false, -- Whether it has rows in job_charges.
  percent       double precision, -- Progress, 0 to 100.
  message       text, -- Progress, in words.
  progress_at   timestamp with time zone, -- When progress was last reported.
  checkpoint    jsonb, -- What a next attempt continues from.
  tokens        jsonb, -- Fencing tokens of its locks, by resource; null: it has none.
  cancel_at     timestamp with time zone, -- When the fence is revoked, if a cancellation was requested.
  cancelled_by  text, -- Who requested it.
  cancel_reason text, -- Why it was requested.
  constraint jobs_running_pkey PRIMARY KEY (id)
);
CREATE INDEX jobs_running_agent_idx ON coordinator.jobs_running USING btree (agent_id, request_id);
CREATE INDEX jobs_running_due_idx ON coordinator.jobs_running USING btree (LEAST(deadline_at, stall_at, cancel_at));
CREATE INDEX jobs_running_key_idx ON coordinator.jobs_running USING btree (key_hash) WHERE (key_hash IS NOT NULL);

-- Jobs that ended, and whose dependants have not all been told: more than one call tells, or another transaction had them. A loop continues.
create table coordinator.jobs_unsettled (
  id        uuid not null, -- The job.
  completed boolean not null, -- Whether it completed.
  constraint jobs_unsettled_pkey PRIMARY KEY (id)
);

-- Jobs that wait for something other than their time. Details of a cause are in tables of their own.
create table coordinator.jobs_waiting (
  id       uuid not null, -- The job.
  class_id bigint not null, -- The class.
  cause    text not null, -- What it waits for: jobs (the end of others), lock, limit, wait (a durable wait), answer (an approval), or tree (its tree is paused).
  due_at   timestamp with time zone, -- When the loop looks at it at the latest; null: never.
  constraint jobs_waiting_pkey PRIMARY KEY (id),
  constraint jobs_waiting_cause CHECK ((cause = ANY (ARRAY['jobs'::text, 'lock'::text, 'limit'::text, 'wait'::text, 'answer'::text, 'tree'::text])))
);
CREATE INDEX jobs_waiting_class_idx ON coordinator.jobs_waiting USING btree (class_id) WHERE (class_id IS NOT NULL);
CREATE INDEX jobs_waiting_due_idx ON coordinator.jobs_waiting USING btree (due_at) WHERE (due_at IS NOT NULL);

-- Which daemon runs the relay and the loops. One row, written by leader_renew. Leadership saves work and guards nothing.
create table coordinator.leaders (
  singleton  boolean not null default true, -- Always true: there is one row.
  process_id integer, -- The leading process, see processes; null when none leads.
  term       bigint not null default 0, -- Increases by one with each change of leader.
  expires_at timestamp with time zone, -- The lead is free after this, or as soon as the process's advisory lock is.
  renewed_at timestamp with time zone, -- When the leader last renewed its lead, once a second (server clock). On a standby it shows how old the data is: see leader_beat.
  constraint leaders_pkey PRIMARY KEY (singleton),
  constraint leaders_singleton CHECK (singleton)
);

-- What the functions accept. Each noun's function file inserts its own rows; a test tries each limit on the functions.
create table coordinator.limits (
  ordinal bigint not null generated always as identity, -- Order of declaration: by noun, then as the noun's file lists them.
  name    text collate "C" not null, -- What is limited.
  value   bigint not null, -- The largest value accepted; for ttl_min, the smallest.
  unit    text not null, -- Unit of value; empty for plain numbers.
  meaning text not null, -- Where the limit applies.
  constraint limits_pkey PRIMARY KEY (name)
);

-- The audit trail of broken locks. Written by lock_break, pruned after 90 days.
create table coordinator.lock_breaks (
  id            bigint not null generated always as identity, -- Order of the breaks.
  project_id    bigint not null, -- See projects.
  resource      text collate "C" not null, -- What was locked.
  agent_id      uuid not null, -- The holder that lost it.
  agent_name    text not null, -- The name of that holder.
  mode          text not null, -- exclusive or shared.
  fencing_token bigint not null, -- The token that became invalid.
  acquired_at   timestamp with time zone not null, -- When it was granted.
  reason        text not null, -- Why, in the words of the one who broke it.
  actor         text not null, -- Who broke it: the name of an agent or of a database role.
  broken_at     timestamp with time zone not null, -- When it was broken (database clock).
  owner         text collate "C" not null default ''::text, -- The owner that lost it, see locks.
  constraint lock_breaks_pkey PRIMARY KEY (id),
  constraint lock_breaks_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint lock_breaks_reason CHECK (((length(reason) >= 1) AND (length(reason) <= 2000)))
);
CREATE INDEX lock_breaks_broken_at_idx ON coordinator.lock_breaks USING btree (broken_at);
CREATE INDEX lock_breaks_project_idx ON coordinator.lock_breaks USING btree (project_id, broken_at);
CREATE INDEX lock_breaks_token_idx ON coordinator.lock_breaks USING btree (fencing_token);

-- Tickets that wait: a row for each resource of a ticket. Read lock_waiters. Written by lock_acquire, lock_cancel, lock_expire, agent_end and whatever hands a lock on.
create table coordinator.lock_waits (
  ticket      bigint not null, -- Place in the queue: the smaller number is served first.
  project_id  bigint not null, -- See projects.
  resource    text collate "C" not null, -- What it waits for, see locks.
  kind        text not null, -- name, path, directory or glob.
  prefix      text collate "C", -- See locks.
  pattern     text collate "C", -- See locks.
  mode        text not null, -- exclusive or shared.
  slots       integer, -- How many may hold a counted lock; null for others.
  agent_id    uuid not null, -- The waiting agent, see agents.
  agent_name  text not null, -- The waiter's name.
  ttl         interval not null, -- The TTL that the lock will have.
  delay       interval not null, -- The lock-delay that the lock will have.
  request_id  uuid, -- The caller's id of the request; may be null.
  enqueued_at timestamp with time zone not null, -- When it began to wait (database clock).
  expires_at  timestamp with time zone not null, -- It waits until then, and blocks nobody after that.
  owner       text collate "C" not null default ''::text, -- Who waits below the agent, see locks.
  within      text[] not null default '{}'::text[], -- Owners of the agent that wait, too, until this request is served: the blocks around it.
  constraint lock_waits_pkey PRIMARY KEY (project_id, resource, ticket),
  constraint lock_waits_mode CHECK ((mode = ANY (ARRAY['exclusive'::text, 'shared'::text])))
);
CREATE INDEX lock_waits_agent_idx ON coordinator.lock_waits USING btree (agent_id);
CREATE INDEX lock_waits_expires_at_idx ON coordinator.lock_waits USING btree (expires_at);
CREATE INDEX lock_waits_prefix_idx ON coordinator.lock_waits USING btree (((project_id + 0)), prefix) WHERE (prefix IS NOT NULL);
CREATE INDEX lock_waits_ticket_idx ON coordinator.lock_waits USING hash (ticket);

-- Locks that are held, and expired ones until they are taken over or deleted: read lock_holders. Written by the lock_… functions and agent_end.
create table coordinator.locks (
  project_id    bigint not null, -- See projects.
  resource      text collate "C" not null, -- What is locked, in its one spelling: name:deploy, src/a.py, src/ or src/**/*.py. At most 1,024 bytes.
  slot          bigint not null, -- 0: exclusive; 1 to slots: a slot of a counted lock; negative: shared, or exclusive within the lock of a parent owner. So the primary key alone keeps exclusive holders of one resource apart.
  kind          text not null, -- name, path, directory or glob.
  prefix        text collate "C", -- Of a directory: its path; of a glob: the path of the literal directory above its matches, '' for the root.
  pattern       text collate "C", -- Of a glob: regular expression of the paths that it matches.
  mode          text not null, -- exclusive or shared.
  slots         integer, -- How many may hold a counted lock; null for others.
  agent_id      uuid not null, -- The holder, see agents.
  agent_name    text not null, -- The holder's name.
  fencing_token bigint not null, -- Greater with each grant. A smaller token belongs to a lock that was lost.
  ttl           interval not null, -- How long each renewal lasts.
  delay         interval not null, -- Lock-delay: how long nobody gets the lock after it expired, was broken or its holder ended; none after a release.
  request_id    uuid, -- The caller's id of the request to which it was granted; may be null.
  ticket        bigint, -- The ticket that waited for it; null if it was granted at once.
  claimed       boolean not null default true, -- False: handed to a waiter that has not claimed it yet (lock_poll); it has 10 seconds.
  acquired_at   timestamp with time zone not null, -- When it was granted (database clock).
  expires_at    timestamp with time zone not null, -- The holder has it until then.
  free_at       timestamp with time zone not null, -- expires_at + delay: others may acquire it from then on; infinity: when the attempt of a job ends that holds it.
  ended_at      timestamp with time zone, -- When it was broken or its holder ended, if the row stays for its delay or for an open guarded transaction; else null.
  owner         text collate "C" not null default ''::text, -- The holder below the agent, such as session/subagent; empty: the agent itself.
  requests      uuid[], -- The request id of each acquisition, if its owner acquired it several times; null: one.
  constraint locks_pkey PRIMARY KEY (project_id, resource, slot)
);
CREATE INDEX locks_agent_idx ON coordinator.locks USING btree (agent_id, ticket);
CREATE INDEX locks_free_at_idx ON coordinator.locks USING btree (free_at);
CREATE INDEX locks_prefix_idx ON coordinator.locks USING btree (((project_id + 0)), prefix) WHERE (prefix IS NOT NULL);

-- Logs: their headers, including those of deleted logs. Read logs_live. Written by log_append, log_pop, log_clear, log_keep, log_delete and retention.
create table coordinator.logs (
  id         bigint not null generated always as identity, -- Internal number.
  project_id bigint not null, -- See projects; 0 for what concerns no project.
  kind       text collate "C" not null, -- What its entries are: message, step, observation, audit, or any kind of the caller's.
  key        text collate "C" not null, -- At most 512 characters; segments are separated by /. Ordered by bytes.
  session_id bigint, -- The session that it belongs to; null: none.
  first_seq  bigint not null default 1, -- Entries below are gone, except kept ones. Never decreases.
  last_seq   bigint not null default 0, -- The last number given: without gaps, in commit order, and never given again.
  count      bigint not null default 0, -- How many entries there are.
  epoch      integer not null, -- The epoch in which last_seq was given, as in entries.
  kept       boolean not null default false, -- True: retention deletes no entry of it.
  deleted    boolean not null default false, -- True: absent for readers; the row is left so that no number is given again.
  updated_at timestamp with time zone not null, -- When it was last appended to or changed (database clock). Not indexed.
  trim_at    timestamp with time zone, -- When retention looks at it next; null: never.
  trim_from  bigint not null default 1, -- Retention has seen the entries below, and left only those that are kept or needed.
  open_until timestamp with time zone, -- Until then, an append need not look at the session (log_open); archiving and deleting the session set it to null. Null: the next append looks.
  open_to    bigint, -- Up to this number, an append need not look at retention (log_open); null: the next append looks.
  constraint logs_pkey PRIMARY KEY (id),
  constraint logs_project_key UNIQUE (project_id, kind, key)
);
CREATE INDEX logs_session_idx ON coordinator.logs USING btree (session_id) WHERE (session_id IS NOT NULL);
CREATE INDEX logs_trim_idx ON coordinator.logs USING btree (trim_at) WHERE (trim_at IS NOT NULL);

-- What the leading daemon samples of the database for its metrics. Each noun's function file inserts its own rows; a test compares them with what the functions return.
create table coordinator.metrics (
  ordinal bigint not null generated always as identity, -- Order of declaration: by noun, then as the noun's file lists them.
  name    text collate "C" not null, -- Name of the metric, as Prometheus sees it.
  sampler text collate "C" not null, -- The function that samples it: it returns rows of name, labels and value.
  kind    text not null, -- gauge; counter: it only grows, until the server starts again; histogram: each row of the function is one observation.
  labels  text[] not null, -- Names of its labels, in the order of their values.
  unit    text not null, -- Unit of its values; empty for plain numbers.
  meaning text not null, -- What it measures.
  constraint metrics_pkey PRIMARY KEY (name),
  constraint metrics_kind CHECK ((kind = ANY (ARRAY['gauge'::text, 'counter'::text, 'histogram'::text])))
);

-- Processes that prove by a shared, session-level advisory lock (1129267026, id) that they are alive: daemons, sidecars, clients. Written by process_register and agent_reap.
create table coordinator.processes (
  id         integer not null generated always as identity, -- Second half of the key of the advisory lock.
  kind       text not null, -- daemon, sidecar or client.
  name       text not null, -- Host name and pid, for people.
  started_at timestamp with time zone not null, -- When it registered (database clock).
  missing_at timestamp with time zone, -- When its lock was first found free; null while it is alive.
  constraint processes_pkey PRIMARY KEY (id),
  constraint processes_kind CHECK ((kind = ANY (ARRAY['daemon'::text, 'sidecar'::text, 'client'::text]))),
  constraint processes_name CHECK (((length(name) >= 1) AND (length(name) <= 200)))
);

-- Projects that were imported, or are being. Written by project_import.
create table coordinator.project_imports (
  project_id  bigint not null, -- The project.
  export      text not null, -- Id of the export, from its first line: only the same one continues.
  lines       bigint not null, -- Lines that are imported; the next call continues after them.
  updated_at  timestamp with time zone not null, -- When the last lines were imported (database clock).
  finished_at timestamp with time zone, -- When the last line was imported; null: it is not.
  constraint project_imports_pkey PRIMARY KEY (project_id),
  constraint project_imports_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE
);

-- A project holds everything else; only administration spans several. Written by project_create, project_set and project_delete.
create table coordinator.projects (
  id          bigint not null generated always as identity, -- Internal number, never reused.
  name        text collate "C" not null, -- Name for people and agents: lower-case letters, digits, - and _; at most 36 characters.
  description text not null default ''::text, -- One line for people; may be empty.
  created_at  timestamp with time zone not null, -- When it was created (database clock).
  paths       text not null default 'normal'::text, -- How locks compare paths. exact: byte by byte; normal: in Unicode normal form C; caseless: so, and without case. Written by project_set.
  user_id     bigint, -- Whose project it is, see users; null: nobody's.
  title       text not null default ''::text, -- Name for people, one line; may be empty.
  settings    jsonb not null default '{}'::jsonb, -- An object of the callers' own.
  updated_at  timestamp with time zone not null, -- When it was last changed (database clock).
  constraint projects_pkey PRIMARY KEY (id),
  constraint projects_name_key UNIQUE (name),
  constraint projects_user_fkey FOREIGN KEY (user_id) REFERENCES coordinator.users(id) ON DELETE SET NULL,
  constraint projects_name CHECK ((name ~ '^[a-z0-9][a-z0-9_-]{0,35}$'::text)),
  constraint projects_paths CHECK ((paths = ANY (ARRAY['exact'::text, 'normal'::text, 'caseless'::text])))
);

-- Policies of queues of jobs: a row for each queue, inserted at its first use.
create table coordinator.queues (
  project_id          bigint not null, -- The project.
  name                text collate "C" not null, -- Name of the queue.
  ageing              interval, -- How long a job waits to gain one step of priority; null: strict priority.
  fair                boolean not null default false, -- Whether keys take turns.
  weights             jsonb not null default '{}'::jsonb, -- Weights of keys in a fair queue; 1 for others.
  max_waiting         integer, -- Most jobs that wait in it; null: no limit.
  max_waiting_per_key integer, -- Most jobs of one key that wait in it; null: no limit.
  events              text not null default 'call'::text, -- call: one event for each call and transition; job: one for each job.
  paused_at           timestamp with time zone, -- When it was paused; null: it is not.
  paused_by           text, -- Who paused it.
  pause_reason        text, -- Why it was paused.
  actor               text not null, -- Who created it or last changed it.
  created_at          timestamp with time zone not null, -- When it was first used or set.
  updated_at          timestamp with time zone not null, -- When it was last changed.
  constraint queues_pkey PRIMARY KEY (project_id, name),
  constraint queues_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint queues_events CHECK ((events = ANY (ARRAY['call'::text, 'job'::text])))
);

-- The relay's lock, and what rarely changes. relay_step locks the table for its transaction.
create table coordinator.relay (
  singleton boolean not null default true, -- Always true: there is one row.
  epoch     text not null, -- First part of every cursor; the present epoch as far as the relay knows, see event_epoch.
  identity  text not null default ''::text, -- Cluster, database and table in whose transaction ids the log is written; empty until the schema is applied.
  payloads  text not null default 'full'::text, -- What NOTIFY carries: full (the event), pointer (only its cursor and type) or head (only the cursor of the newest event). Any role that may connect can LISTEN. Written by event_configure.
  constraint relay_pkey PRIMARY KEY (singleton),
  constraint relay_payloads CHECK ((payloads = ANY (ARRAY['full'::text, 'pointer'::text, 'head'::text]))),
  constraint relay_singleton CHECK (singleton)
);

-- How much is kept, and for how long: by project, subject and kind. Written by retention_set and retention_reset.
create table coordinator.retention (
  id         bigint not null generated always as identity, -- Internal number.
  project_id bigint, -- The project to which it applies; null for all that have none of their own.
  subject    text collate "C" not null, -- log, document, session or artifact.
  kind       text collate "C" not null, -- Kind of the logs or documents; * for kinds without a policy of their own, and for sessions and artifacts.
  max_age    interval, -- Age at which an entry of a log goes, time after its deletion at which a document goes, time without activity after which a session goes, or time since its content was stored after which an artifact of no session goes; null: never.
  max_count  bigint, -- Newest entries that a log keeps, or newest versions that a document keeps; null: all.
  actor      text not null, -- Who set it: the name of an agent or of a database role.
  updated_at timestamp with time zone not null, -- When it was set (database clock).
  constraint retention_pkey PRIMARY KEY (id),
  constraint retention_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint retention_max_age CHECK ((EXTRACT(epoch FROM max_age) > (0)::numeric)),
  constraint retention_max_count CHECK ((max_count > 0)),
  constraint retention_subject CHECK ((subject = ANY (ARRAY['log'::text, 'document'::text, 'session'::text, 'artifact'::text])))
);
CREATE UNIQUE INDEX retention_kind_key ON coordinator.retention USING btree (subject, kind, COALESCE(project_id, (0)::bigint));

-- Changes of retention that have not reached all logs, documents, sessions and artifacts yet. Written by retention_set and retention_reset, worked off by retention_sweep.
create table coordinator.retention_sweeps (
  id          bigint not null generated always as identity, -- Their order.
  project_id  bigint, -- The project whose retention changed; null for all.
  subject     text not null, -- log, document, session or artifact.
  kind        text not null, -- The kind whose retention changed; * for any.
  swept_to    bigint not null default 0, -- Internal number of the last log, document, session or artifact that the change has reached.
  swept_until bigint, -- Number of the last log, document, session or artifact that it concerns; null: all. A sweep leaves rows that another transaction has locked to a sweep of their own.
  constraint retention_sweeps_pkey PRIMARY KEY (id),
  constraint retention_sweeps_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE
);

-- The least role that may call a function. Functions not listed are internal: only coordinator_admin and the daemon call them. Each noun's function file inserts its own rows.
create table coordinator.rights (
  ordinal  bigint not null generated always as identity, -- Order of declaration: by noun, then as the noun's file lists them.
  function text collate "C" not null, -- Name of a function of this schema.
  role     text not null, -- reader, agent, manager or admin; each includes the ones before it.
  constraint rights_pkey PRIMARY KEY (function),
  constraint rights_role CHECK ((role = ANY (ARRAY['reader'::text, 'agent'::text, 'manager'::text, 'admin'::text])))
);

-- Projects to which database roles are restricted; a role without a row may use all. Written by role_bind and role_unbind.
create table coordinator.role_projects (
  role    text collate "C" not null, -- Name of a role that logs in (session_user); SET ROLE has no effect.
  project text collate "C" not null, -- Name of a project that it may use.
  constraint role_projects_pkey PRIMARY KEY (role, project),
  constraint role_projects_project CHECK ((project ~ '^[a-z0-9][a-z0-9_-]{0,35}$'::text)),
  constraint role_projects_role CHECK (((length(role) >= 1) AND (length(role) <= 63)))
);

-- Which programs this schema serves; one row. A migration that removes what earlier releases use raises oldest.
create table coordinator.schema_compatibility (
  singleton boolean not null default true, -- Always true.
  oldest    integer not null, -- Number of the newest migration that a program must know to run on this schema.
  constraint schema_compatibility_pkey PRIMARY KEY (singleton),
  constraint schema_compatibility_singleton CHECK (singleton)
);

-- The SQL files that made this schema, written by "coordinator schema apply".
create table coordinator.schema_files (
  kind       text not null, -- migration (applied once, never edited) or functions (applied again whenever any file changed).
  name       text not null, -- File name within migrations/ or functions/, such as 0001_foundation.sql or lock/acquire.sql.
  checksum   text not null, -- SHA-256 of the file's bytes, hexadecimal.
  program    text not null, -- Version of the program that applied the file.
  applied_at timestamp with time zone not null default clock_timestamp(), -- When it was last applied (database clock).
  constraint schema_files_pkey PRIMARY KEY (kind, name),
  constraint schema_files_kind CHECK ((kind = ANY (ARRAY['migration'::text, 'functions'::text])))
);

-- Roles that coordinator.schema_grant admitted to the schema; granted again after every apply.
create table coordinator.schema_roles (
  role text not null, -- Name of a PostgreSQL role.
  constraint schema_roles_pkey PRIMARY KEY (role)
);

-- Conversations and runs of work. Written by session_create, session_set, session_archive and session_fork, and by whatever first appends or puts something under the key.
create table coordinator.sessions (
  id          bigint not null generated always as identity, -- Internal number, never reused.
  project_id  bigint not null, -- The project, see projects.
  key         text collate "C" not null, -- Name in its project: the key of its messages, steps and state.
  user_id     bigint, -- Whose session it is, see users; null: nobody's.
  title       text not null default ''::text, -- One line for people; may be empty.
  mission     text not null default ''::text, -- What is to be done; may be empty.
  status      text collate "C" not null default 'active'::text, -- active, archived (then nothing is appended or put), or a word of the caller's own.
  context     jsonb not null default '{}'::jsonb, -- An object of the caller's own.
  forked_from text collate "C", -- Key of the session of which it began as a copy; null: of none.
  actor       text not null, -- Who created it.
  created_at  timestamp with time zone not null, -- When it was created (database clock).
  updated_at  timestamp with time zone not null, -- When it was last changed, or something was last appended or put, to about a minute.
  trim_at     timestamp with time zone, -- When session_expire looks at it next; null: never.
  constraint sessions_pkey PRIMARY KEY (id),
  constraint sessions_key UNIQUE (project_id, key),
  constraint sessions_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint sessions_user_fkey FOREIGN KEY (user_id) REFERENCES coordinator.users(id) ON DELETE SET NULL,
  constraint sessions_status CHECK ((status ~ '^[a-z][a-z0-9_-]{0,35}$'::text))
);
CREATE INDEX sessions_recent_idx ON coordinator.sessions USING btree (project_id, updated_at DESC, key DESC);
CREATE INDEX sessions_status_idx ON coordinator.sessions USING btree (project_id, status, updated_at DESC, key DESC);
CREATE INDEX sessions_trim_at_idx ON coordinator.sessions USING btree (trim_at) WHERE (trim_at IS NOT NULL);
CREATE INDEX sessions_user_idx ON coordinator.sessions USING btree (user_id, project_id, updated_at DESC, key DESC);

-- Which signals are cleared when one is set, in the same transaction. A rule names the last segment of a key and clears keys beside it: with the default rule, setting task/7/REJECTED deletes task/7/COMPLETED and task/7/QA_PASSED. Written by rule_set and rule_delete.
create table coordinator.signal_rules (
  id         bigint not null generated always as identity, -- Internal number.
  project_id bigint, -- The project to which it applies; null for all.
  when_set   text collate "C" not null, -- Last segment of the key whose setting triggers the rule.
  clears     text[] not null, -- Last segments of the keys that are deleted then.
  created_at timestamp with time zone not null, -- When the rule was created or last changed (database clock).
  constraint signal_rules_pkey PRIMARY KEY (id),
  constraint signal_rules_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint signal_rules_when_set CHECK ((((length(when_set) >= 1) AND (length(when_set) <= 512)) AND (strpos(when_set, '/'::text) = 0)))
);
CREATE UNIQUE INDEX signal_rules_when_set_key ON coordinator.signal_rules USING btree (when_set, COALESCE(project_id, (0)::bigint));

-- Signals, including expired ones that are not deleted yet: read signals_live. Written by signal_set, signal_delete and signal_expire.
create table coordinator.signals (
  project_id bigint not null, -- See projects.
  key        text collate "C" not null, -- At most 512 characters; segments are separated by /. Ordered by bytes.
  value      jsonb not null, -- Any JSON value.
  version    bigint not null, -- Grows with each set; unique across all signals and all time. Compare for equality only.
  critical   boolean not null, -- True: never expires.
  agent_id   uuid, -- The agent with which an ephemeral signal ends; null for others.
  actor      text not null, -- Who last set it: the name of an agent or of a database role.
  created_at timestamp with time zone not null, -- When the key was created (database clock).
  updated_at timestamp with time zone not null, -- When it was last set (database clock).
  expires_at timestamp with time zone, -- Absent for readers from then on; null if critical.
  constraint signals_pkey PRIMARY KEY (project_id, key),
  constraint signals_critical CHECK ((critical = (expires_at IS NULL))),
  constraint signals_key CHECK (((length(key) >= 1) AND (length(key) <= 512)))
);
CREATE INDEX signals_agent_idx ON coordinator.signals USING btree (agent_id) WHERE (agent_id IS NOT NULL);
CREATE INDEX signals_expires_at_idx ON coordinator.signals USING btree (expires_at) WHERE (expires_at IS NOT NULL);

-- Sizes of the last 60 days on which they were measured. Written by server_measure: the row of a day is its last measurement.
create table coordinator.sizes (
  day         date not null, -- The day, in UTC (database clock).
  kind        text collate "C" not null, -- database; table, with its partitions; project; or limit, the maximum size of the database.
  name        text collate "C" not null, -- Name of the table or project; empty for the database and its limit.
  bytes       bigint not null, -- Size with indexes; of a project, an estimate. Tables and projects below 1 MB, and projects beyond the 50 largest, have no row.
  measured_at timestamp with time zone not null, -- When it was measured (database clock).
  constraint sizes_pkey PRIMARY KEY (day, kind, name),
  constraint sizes_kind CHECK ((kind = ANY (ARRAY['database'::text, 'table'::text, 'project'::text, 'limit'::text])))
);

-- Tokens for HTTP: their hashes, never the secrets. Written by token_create, token_use and token_revoke; deleted 90 days after they end, or with their project.
create table coordinator.tokens (
  id           bigint not null generated always as identity, -- Number of the token.
  hash         text collate "C" not null, -- SHA-256 of the secret, hexadecimal. The secret is 256 random bits that nobody can guess, so nothing slower is needed.
  prefix       text collate "C" not null, -- First 8 characters of the secret, to recognise it.
  name         text collate "C" not null, -- Who uses it, for people; the actor of its calls if they name no other. Need not be unique: a new token can replace an old one.
  role         text not null, -- reader, agent, manager or admin; each includes the ones before it. See rights.
  project_id   bigint, -- The only project that it gives access to, see projects; null: all.
  actor        text not null, -- Who created it: the name of a token or of a database role.
  created_at   timestamp with time zone not null, -- When it was created (database clock).
  expires_at   timestamp with time zone not null, -- It is invalid after this.
  last_used_at timestamp with time zone, -- When it was last used, to about a minute; null: never.
  revoked_at   timestamp with time zone, -- When it was revoked; null: it was not.
  user_id      bigint, -- The user with whom it ends, see users; null: none.
  constraint tokens_pkey PRIMARY KEY (id),
  constraint tokens_hash_key UNIQUE (hash),
  constraint tokens_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE,
  constraint tokens_user_fkey FOREIGN KEY (user_id) REFERENCES coordinator.users(id) ON DELETE SET NULL,
  constraint tokens_admin CHECK (((role <> 'admin'::text) OR (project_id IS NULL))),
  constraint tokens_hash CHECK ((hash ~ '^[0-9a-f]{64}$'::text)),
  constraint tokens_name CHECK (((length(name) >= 1) AND (length(name) <= 200))),
  constraint tokens_prefix CHECK ((prefix ~ '^coo_[A-Za-z0-9_-]{4}$'::text)),
  constraint tokens_role CHECK ((role = ANY (ARRAY['reader'::text, 'agent'::text, 'manager'::text, 'admin'::text])))
);
CREATE INDEX tokens_expires_at_idx ON coordinator.tokens USING btree (expires_at);
CREATE INDEX tokens_project_idx ON coordinator.tokens USING btree (project_id);
CREATE INDEX tokens_user_idx ON coordinator.tokens USING btree (user_id);

-- The functions that may be part of a transaction: those that never wait for anything but another transaction's end. Each noun's function file inserts its own rows.
create table coordinator.transaction_verbs (
  ordinal    bigint not null generated always as identity, -- Order of declaration: by noun, which is the order in which their locks are taken. A noun with keyed_by takes those of another.
  function   text collate "C" not null, -- Name of a function of this schema; its first parameter is p_project.
  part       text not null, -- condition: the function raises an error unless something holds, and keeps it so until the transaction ends; write: it changes something.
  entered_by text collate "C", -- Name of the internal function (project number, parts) that takes the locks of all parts that name it, in an order of its own; null if the function locks nothing.
  keyed_by   text collate "C", -- Name of the internal function (project, parameters) that returns the parameters with the kind and key of each log or document that the function writes; null where these are parameters, and where it writes none.
  constraint transaction_verbs_pkey PRIMARY KEY (function),
  constraint transaction_verbs_part CHECK ((part = ANY (ARRAY['condition'::text, 'write'::text])))
);

-- Attempts to verify users, of unknown ones, too. Written by user_challenge; deleted by user_verify, if it succeeds, and user_challenge, once they are over.
create table coordinator.user_attempts (
  username text collate "C" not null, -- Name that was tried.
  count    integer not null, -- How often it was tried.
  ends_at  timestamp with time zone not null, -- The count starts again after this.
  constraint user_attempts_pkey PRIMARY KEY (username)
);
CREATE INDEX user_attempts_ends_at_idx ON coordinator.user_attempts USING btree (ends_at);

-- Hashes of passwords; only administrators read them. Written by user_create and user_password.
create table coordinator.user_passwords (
  user_id    bigint not null, -- The user, see users.
  hash       text not null, -- PHC string of scrypt: costs, salt and hash. The password itself never reaches the database.
  updated_at timestamp with time zone not null, -- When the password was set.
  constraint user_passwords_pkey PRIMARY KEY (user_id),
  constraint user_passwords_user_fkey FOREIGN KEY (user_id) REFERENCES coordinator.users(id) ON DELETE CASCADE,
  constraint user_passwords_hash CHECK ((hash ~ '^\$scrypt\$ln=15,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$'::text))
);

-- People and programs that own projects, sessions and tokens. Written by user_create and user_set; deleted by user_delete. A role that is restricted to projects sees those that appear in them.
create table coordinator.users (
  id          bigint not null generated always as identity, -- Internal number, never reused.
  username    text collate "C" not null, -- Name: lower-case letters, digits, dots, - and _; at most 64 characters.
  email       text collate "C", -- Address in lower case; null: none.
  role        text not null, -- reader, agent, manager or admin; each includes the ones before it. No token of the user has more.
  disabled_at timestamp with time zone, -- When the user was disabled; null: it is not.
  actor       text not null, -- Who created it.
  created_at  timestamp with time zone not null, -- When it was created (database clock).
  updated_at  timestamp with time zone not null, -- When it was last changed.
  constraint users_pkey PRIMARY KEY (id),
  constraint users_email_key UNIQUE (email),
  constraint users_username_key UNIQUE (username),
  constraint users_role CHECK ((role = ANY (ARRAY['reader'::text, 'agent'::text, 'manager'::text, 'admin'::text]))),
  constraint users_username CHECK ((username ~ '^[a-z0-9][a-z0-9._-]{0,63}$'::text))
);

-- Events for webhooks: those that wait, and the newest that were delivered or are dead. Written by webhook_fill, webhook_finish, webhook_test and webhook_redrive; deleted by webhook_prune.
create table coordinator.webhook_deliveries (
  id           bigint not null generated always as identity, -- Number of the delivery; a webhook delivers in this order.
  webhook_id   bigint not null, -- The webhook.
  message      text not null, -- The header webhook-id of each of its attempts.
  type         text not null, -- Type of the event; reset: events are gone; test: a test.
  key          text, -- Key of the event.
  at           timestamp with time zone not null, -- When the event happened (database clock).
  test         boolean not null default false, -- True: a test, which goes before what waits and is attempted once.
  body         text, -- The body of the request; null: it was delivered.
  status       text not null default 'waiting'::text, -- waiting, delivered, or dead: no further attempt is made.
  attempts     integer not null default 0, -- Attempts that have ended.
  due_at       timestamp with time zone not null, -- Not before this instant is it attempted (database clock).
  attempted_at timestamp with time zone, -- When the last attempt ended (database clock).
  ended_at     timestamp with time zone, -- When it was delivered or found dead (database clock).
  response     integer, -- HTTP status of the last response; null: there was none.
  error        text, -- Why the last attempt failed.
  seconds      double precision, -- Duration of the last attempt.
  constraint webhook_deliveries_pkey PRIMARY KEY (id),
  constraint webhook_deliveries_webhook_fkey FOREIGN KEY (webhook_id) REFERENCES coordinator.webhooks(id) ON DELETE CASCADE,
  constraint webhook_deliveries_status CHECK ((status = ANY (ARRAY['waiting'::text, 'delivered'::text, 'dead'::text])))
);
CREATE INDEX webhook_deliveries_dead_idx ON coordinator.webhook_deliveries USING btree (webhook_id, id) WHERE (status = 'dead'::text);
CREATE INDEX webhook_deliveries_next_idx ON coordinator.webhook_deliveries USING btree (webhook_id, test DESC, id) WHERE (status = 'waiting'::text);
CREATE INDEX webhook_deliveries_webhook_idx ON coordinator.webhook_deliveries USING btree (webhook_id, id);

-- Where the comparison of the log with webhooks is. Whoever compares locks the row.
create table coordinator.webhook_log (
  singleton boolean not null default true, -- Always true: there is one row.
  seq       bigint not null, -- Events up to this one were compared with all webhooks that are not behind.
  late      jsonb not null default '{}'::jsonb, -- Webhooks that another transaction had in that moment, with the event after which each has to be compared.
  constraint webhook_log_pkey PRIMARY KEY (singleton),
  constraint webhook_log_singleton CHECK (singleton)
);

-- URLs to which the leading daemon sends events. Readable by the owner and administrators only, because of the secrets.
create table coordinator.webhooks (
  id            bigint not null generated always as identity, -- Number of the webhook.
  project_id    bigint not null, -- The project whose events it sends.
  url           text not null, -- Where it sends them.
  topics        text[] not null, -- Types of the events, such as lock.broken or signal.*.
  pattern       text not null, -- The topics as one regular expression.
  secret        text not null, -- The key of its signatures: whsec_ and base64. Shown once, to whoever made it.
  secret_before text, -- The former secret, which signs as well until before_until.
  before_until  timestamp with time zone, -- Until when the former secret signs.
  after_seq     bigint not null, -- Events up to this one were compared with its topics; while it is not behind, also those up to webhook_log.seq.
  behind        boolean not null default true, -- True: it reads the log on its own from after_seq on, until it has come to webhook_log.seq.
  waiting       integer not null default 0, -- Its deliveries that wait.
  waiting_bytes bigint not null default 0, -- Bytes of their bodies.
  due_at        timestamp with time zone, -- When its next delivery is due; while it is claimed, when the claim ends; null: there is none.
  claim         bigint not null default 0, -- Number of its newest claim: who claimed it before changes nothing more.
  claimed_until timestamp with time zone, -- Until when a daemon delivers for it; null: none does.
  slow          boolean not null default false, -- True: its last attempt failed, or took over a second.
  failing_since timestamp with time zone, -- Since when every attempt has failed; null: the last one succeeded.
  error         text, -- Why the last attempt failed; null: it succeeded.
  delivered_at  timestamp with time zone, -- When an event was last delivered.
  paused_at     timestamp with time zone, -- When it was paused or disabled; null: it is active.
  paused_by     text, -- Who paused it.
  pause_reason  text, -- Why it was paused or disabled.
  disabled      boolean not null default false, -- True: coordinator paused it, because its receiver is gone or failed for too long.
  actor         text not null, -- Who added it.
  created_at    timestamp with time zone not null, -- When it was added (database clock).
  updated_at    timestamp with time zone not null, -- When it was last rotated, paused or resumed (database clock).
  slots         integer not null default 1, -- How many of the slots of a daemon its next delivery takes, or while it is claimed, the claim.
  holder        uuid, -- Who has the newest claim: a random number of a daemon.
  constraint webhooks_pkey PRIMARY KEY (id),
  constraint webhooks_project_fkey FOREIGN KEY (project_id) REFERENCES coordinator.projects(id) ON DELETE CASCADE
);
CREATE INDEX webhooks_behind_idx ON coordinator.webhooks USING btree (after_seq) WHERE (behind AND (paused_at IS NULL) AND (waiting < 100) AND (waiting_bytes < 1048576));
CREATE INDEX webhooks_claimed_idx ON coordinator.webhooks USING btree (project_id) WHERE (claimed_until IS NOT NULL);
CREATE INDEX webhooks_due_idx ON coordinator.webhooks USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX webhooks_following_idx ON coordinator.webhooks USING btree (after_seq) WHERE (NOT behind);
CREATE INDEX webhooks_project_idx ON coordinator.webhooks USING btree (project_id, id);

-- 0 until a project first ignores the case of paths, then 1 for ever: from then on lock_acquire looks for the rule of paths with capital letters. Set by project_set.
create sequence coordinator.caseless_paths as bigint minvalue 0 start 0;

-- The id of the present epoch: when it began (milliseconds since 2026), and 20 random bits. Not called yet: the id is that of epoch_mark. Set by epoch_begin, outside of transactions, before epoch_mark.
create sequence coordinator.epoch_begun as bigint minvalue 1 start 1;

-- The present epoch: its id, drawn at random (upper 32 bits), and a hash of the run of the server and of the database in which it began (lower 32 bits). Set by epoch_begin, outside of transactions.
create sequence coordinator.epoch_mark as bigint minvalue -9223372036854775808 start 1;

-- last_value: events up to and including this seq are pruned. Set by event_prune before it drops a partition.
create sequence coordinator.event_floor as bigint minvalue 0 start 0;

-- Ids of events. Every event that is visible has an id up to last_value.
create sequence coordinator.event_ids as bigint minvalue 0 start 0;

-- Fences of jobs: a new number at each claim.
create sequence coordinator.job_fences as bigint minvalue 1 start 1;

-- Places of permits in their line.
create sequence coordinator.job_turns as bigint minvalue 1 start 1;

-- Tickets that wait for locks; the smaller number is served first.
create sequence coordinator.lock_tickets as bigint minvalue 1 start 1;

-- Fencing tokens of all locks: each grant gets the next one, which is greater than those of all earlier grants.
create sequence coordinator.lock_tokens as bigint minvalue 1 start 1;

-- The relay's doorbell. last_value is the instant (milliseconds since 1970) until which writers ring because the relay sleeps; 0 while it is awake.
create sequence coordinator.relay_bell as bigint minvalue 0 start 0;

-- 0 until a role is first restricted to a project, then 1 for ever: from then on lock_acquire and lock_release look for bindings. Set by a trigger of role_projects.
create sequence coordinator.role_bindings as bigint minvalue 0 start 0;

-- Versions of all signals. A version is never used twice, not even for a key that was deleted and set again.
create sequence coordinator.signal_versions as bigint minvalue 1 start 1;

-- Registered agents, and agents that ended in the last 30 days.
create view coordinator.agents_known (
  id            uuid, -- Id of this incarnation: new at each start of the agent.
  project       text, -- Name of the project.
  name          text, -- Name to which directives are addressed.
  role          text, -- Role to which directives are addressed.
  job_types     text[], -- Job types that it accepts.
  labels        text[], -- Labels that jobs can require of their worker.
  metadata      jsonb, -- JSON object chosen by the agent.
  ttl           interval, -- Longest time without a heartbeat.
  registered_at timestamp with time zone, -- When it registered.
  heartbeat_at  timestamp with time zone, -- When it last sent a heartbeat.
  expires_at    timestamp with time zone, -- When it is reaped without another heartbeat.
  ended_at      timestamp with time zone, -- When it ended; null: it is registered.
  end_reason    text, -- deregistered, expired (no heartbeat) or process died; null: it is registered.
  process_id    integer -- Process whose death ends the agent; see processes.
);

-- Registered agents.
create view coordinator.agents_live (
  id            uuid, -- Id of this incarnation: new at each start of the agent.
  project       text, -- Name of the project.
  name          text, -- Name to which directives are addressed.
  role          text, -- Role to which directives are addressed.
  job_types     text[], -- Job types that it accepts.
  labels        text[], -- Labels that jobs can require of their worker.
  metadata      jsonb, -- JSON object chosen by the agent.
  ttl           interval, -- Longest time without a heartbeat; longer while it holds locks with a longer TTL.
  registered_at timestamp with time zone, -- When it registered.
  heartbeat_at  timestamp with time zone, -- When it last sent a heartbeat.
  expires_at    timestamp with time zone, -- When it is reaped without another heartbeat.
  process_id    integer -- Process whose death ends the agent; see processes.
);

-- Artifacts of the projects that the reader may use.
create view coordinator.artifacts_live (
  project    text, -- Name of the project.
  artifact   text, -- Name of the artifact.
  session    text, -- Key of its session; null: it belongs to the project.
  media_type text, -- Media type of the content.
  bytes      bigint, -- Size of the content.
  sha256     text, -- SHA-256 of the content, in hexadecimal.
  kept       boolean, -- True: exempt from retention.
  actor      text, -- Who stored the current content.
  created_at timestamp with time zone, -- When the name was first used.
  updated_at timestamp with time zone, -- When the current content was stored.
  id         bigint, -- Number of the artifact.
  store      text -- Object store of the content; null: the database.
);

-- Who did what, when and from where, in all projects. Only managers and administrators see rows.
create view coordinator.audit_trail (
  project    text, -- Name of the project; null: it does not exist (any more).
  seq        bigint, -- Number within the trail of the project.
  epoch      text, -- Epoch in which the entry was copied.
  action     text, -- Type of the event.
  subject    text, -- Key of the event.
  detail     json, -- Data of the event.
  actor      text, -- Who did it, according to the caller.
  created_at timestamp with time zone, -- When it happened.
  role       text, -- Database role that logged in.
  address    text, -- Address from which the role connected to the database; null: a Unix socket.
  origin     json, -- Origin of the call according to the role: a daemon gives token, name and address, or a loop.
  hash       text -- Hash of the entry; null: the entry is older than the hash chain.
);

-- Signals that each agent watches, and what it has been told.
create view coordinator.briefings_read (
  project  text, -- Name of the project.
  agent    text, -- Name of the agent.
  patterns text[], -- Key patterns of the signals that it watches.
  told     jsonb, -- Last version of each watched signal that the agent was told, by key.
  read_at  timestamp with time zone -- When it last read a briefing with news.
);

-- Sessions with messages.
create view coordinator.conversations (
  id              bigint, -- Number of the session; see sessions.
  title           text, -- Title of the session.
  message_count   bigint, -- Number of messages.
  last_message_at timestamp with time zone, -- When the last message was appended; null: there is none.
  project         text, -- Name of the project.
  session         text, -- Key of the session.
  status          text -- Status of the session.
);

-- Schedules that enqueue jobs at recurring times.
create view coordinator.crons_live (
  project      text, -- Name of the project.
  cron         text, -- Name of the cron.
  schedule     text, -- Schedule: minute, hour, day, month and weekday.
  zone         text, -- Time zone of the schedule.
  missed       text, -- What to do about missed times: skip, once or all.
  job          jsonb, -- The job, as an object of job_enqueue_many; {fire_at} in it is replaced by the scheduled time.
  next_at      timestamp with time zone, -- When it fires next; null: it is paused.
  last_at      timestamp with time zone, -- Last scheduled time for which it fired.
  last_job     uuid, -- Job enqueued for last_at.
  error        text, -- Why the job for next_at could not be enqueued; null: no error, or not due yet.
  paused_at    timestamp with time zone, -- When it was paused; null: it is not.
  paused_by    text, -- Who paused it.
  pause_reason text, -- Why it was paused.
  actor        text, -- Who created it or last changed it.
  created_at   timestamp with time zone, -- When it was created.
  updated_at   timestamp with time zone -- When it was last changed.
);

-- Recipients that have not answered an open directive. Each row is a directive and a recipient to whom it is unseen, or seen but neither done nor refused. The recipients of a role or of everyone are the agents that are registered now, except the sender; the recipient of a job is its worker, and one answer is enough.
create view coordinator.directives_pending (
  id         bigint, -- Number of the directive.
  agent      text, -- Name of the recipient; null: no recipient is registered, and none has answered.
  status     text, -- unseen: no acknowledgement; seen: seen only.
  priority   integer, -- Higher comes first.
  body       text, -- The text.
  actor      text, -- Who sent it.
  sent_at    timestamp with time zone, -- When it was sent.
  expires_at timestamp with time zone, -- When it expires; no agent receives it afterwards.
  project    text -- Name of the project.
);

-- Directives, open and ended.
create view coordinator.directives_sent (
  id          bigint, -- Number of the directive, in order of sending.
  project     text, -- Name of the project.
  to_agent    text, -- Name of the addressed agent.
  to_role     text, -- Role of the addressed agents.
  to_job      uuid, -- Job whose worker is addressed. All three null: everyone in the project.
  body        text, -- The text.
  data        jsonb, -- JSON object for programs; may be empty.
  priority    integer, -- Higher comes first.
  key         text, -- A newer directive with the same key and target supersedes the older; may be null.
  status      text, -- open, revoked, superseded or expired; in an inbox unseen or seen.
  actor       text, -- Who sent it.
  sent_at     timestamp with time zone, -- When it was sent.
  expires_at  timestamp with time zone, -- When it expires; no agent receives it afterwards.
  traceparent text -- The W3C trace context of the call that sent it; null: there is none.
);

-- Current documents, with the latest version of each. Deleted and expired documents are excluded.
create view coordinator.documents_live (
  project    text, -- Name of the project.
  kind       text, -- Kind: state, todo, features, or a kind chosen by callers.
  key        text, -- Key, unique in its project and kind.
  version    bigint, -- Number of the latest version.
  epoch      text, -- Epoch in which this version was written.
  session    text, -- Key of its session; null: none.
  kept       boolean, -- True: exempt from retention.
  actor      text, -- Who wrote this version.
  created_at timestamp with time zone, -- When it was first put, or put again after it was absent.
  updated_at timestamp with time zone, -- When this version was written.
  expires_at timestamp with time zone, -- When it expires; null: never.
  value      jsonb -- The value; U+FFFD replaces what jsonb rejects. document_get returns the exact text.
);

-- Entries of all logs except audit trails. Filter by kind and key; otherwise the whole table is read.
create view coordinator.entries_live (
  project    text, -- Name of the project.
  kind       text, -- Kind of the log.
  key        text, -- Key of the log.
  seq        bigint, -- Number within the log.
  epoch      text, -- Epoch in which it was written.
  uid        text, -- Unique id chosen by the caller; null: none.
  role       text, -- Role of its author in a conversation; null: not given.
  tokens     integer, -- Number of model tokens; null: unknown.
  needs      bigint, -- Earliest entry without which it is of no use; null: none.
  kept       boolean, -- True: exempt from retention.
  actor      text, -- Who appended it.
  created_at timestamp with time zone, -- When it was appended.
  data       json, -- The content. U+FFFD replaces NUL and lone surrogates, so that SQL can read it.
  raw        text -- Exact text if it differs from data; otherwise null.
);

-- Steps of all sessions. Filter by project and session; otherwise all are read.
create view coordinator.execution_history (
  id          text, -- Unique id of the step.
  session_id  bigint, -- Session; see sessions.
  step_id     bigint, -- Number of the step within the session.
  thought     text, -- What the agent thought; null: not given.
  action      json, -- What it did, as JSON; null: nothing.
  observation json, -- What it then saw, as JSON; null: nothing.
  timestamp   timestamp with time zone, -- When it was appended.
  project     text, -- Name of the project.
  session     text, -- Key of the session.
  uid         text, -- Unique id chosen by the caller; null: none.
  actor       text, -- Who appended it.
  data        json, -- The whole step. U+FFFD replaces NUL and lone surrogates.
  raw         text -- Exact text if it differs from data; otherwise null.
);

-- Locked paths, directories and globs.
create view coordinator.file_locks (
  path       text, -- Path, directory (ends with /), or glob.
  agent_id   uuid, -- Agent that holds it; see agents.
  lock_type  text, -- exclusive or shared.
  created_at timestamp with time zone, -- When it was granted.
  expires_at timestamp with time zone, -- When the lease expires.
  project    text -- Name of the project.
);

-- File contents that each agent last saw.
create view coordinator.file_views (
  project  text, -- Name of the project.
  path     text, -- Path of the file, as locks spell it.
  agent    text, -- Name of the agent.
  owner    text, -- Owner within the agent, such as session/subagent; empty: the agent itself.
  hash     text, -- Hash of the content; -: the file did not exist; null: unknown.
  seen_at  timestamp with time zone, -- When it read or wrote that content.
  wrote_at timestamp with time zone -- When it last wrote the file; null: never.
);

-- Attempts of jobs: running ones, and the last 50 ended ones of each job.
create view coordinator.job_attempts (
  job        uuid, -- The job.
  attempt    integer, -- Number of the attempt, from 1. A snoozed or released attempt shares its number with the next.
  fence      bigint, -- Fence of the attempt; grows with each attempt.
  worker_id  uuid, -- Agent that ran it.
  worker     text, -- Name of that agent.
  started_at timestamp with time zone, -- When it began.
  ended_at   timestamp with time zone, -- When it ended; null while it runs.
  outcome    text, -- running, completed, failed, snoozed, released, worker_lost, stalled or deadline; for the last attempt, how the job ended.
  error      text, -- Error of the attempt; may be null.
  project    text -- Name of the project.
);

-- Job limits, with their free capacity, users and waiting jobs.
create view coordinator.job_limits_live (
  project       text, -- Name of the project.
  name          text, -- Name of the limit.
  kind          text, -- slots (jobs that run at once), rate (tokens per interval) or budget (an amount).
  queue         text, -- Queue to which it applies; null: all queues.
  type          text, -- Job type to which it applies; null: all types. With neither queue nor type, it applies to jobs that name it.
  per_key       boolean, -- True: each key has its own limit, and jobs without a key have none.
  tree          uuid, -- Root of the job tree to which it applies; null: no tree.
  slots         integer, -- Maximum number of jobs that run at once.
  rate          double precision, -- Tokens per interval.
  per           interval, -- The interval of the rate.
  burst         integer, -- Maximum number of tokens that accumulate.
  budget        bigint, -- Maximum amount per period.
  period        text, -- hour, day (both in UTC) or ever.
  reserve       bigint, -- Amount that a claim reserves for a job that states no cost.
  on_exhausted  text, -- What happens to running jobs when the budget is exhausted: nothing (stop: no job starts) or cancel.
  used          bigint, -- Slots in use, or the amount reserved and spent in this period; null for a rate.
  free          bigint, -- Slots, tokens or amount available now; null: each key has its own.
  resets_at     timestamp with time zone, -- When the next period of the budget begins; null: never, or it is not a budget.
  users         jsonb, -- The five types and keys whose running jobs use most: an array of objects with type, key and used.
  keys          jsonb, -- With a rate or budget per key, the five keys with the least left: an array of objects with key and free.
  waiting_count integer, -- Jobs that need it and are queued or, with a tree, wait for it; at most 10,000 are counted.
  held_until    timestamp with time zone, -- End of the hold, before which no job that needs it starts; null: it is not held.
  held_by       text, -- Who holds it.
  hold_reason   text, -- Why it is held.
  actor         text, -- Who created it or last changed it.
  created_at    timestamp with time zone, -- When it was first set.
  updated_at    timestamp with time zone -- When it was last changed.
);

-- Job questions that wait for a manager's answer.
create view coordinator.job_questions (
  job      uuid, -- The job.
  step     text, -- Name of the step that stores the answer.
  ordinal  integer, -- Number of the step among those of this name.
  question text, -- The question.
  options  text[], -- The possible answers; null: any JSON value.
  fallback jsonb, -- Answer used if nobody answers by due_at; null: none.
  worker   text, -- Name of the worker that asked; it may not answer.
  asked_at timestamp with time zone, -- When it asked.
  due_at   timestamp with time zone, -- When the question ends without an answer; null: never.
  type     text, -- Type of the job.
  queue    text, -- Queue of the job.
  project  text -- Name of the project.
);

-- Jobs of all projects, without a security barrier, so that conditions of any kind reach the indexes. Internal: functions read it.
create view coordinator.job_rows (
  id           uuid, -- UUID, ordered by creation time.
  type         text, -- Type that a worker must have in its job_types.
  payload      jsonb, -- Any JSON value for the worker.
  status       text, -- queued, scheduled, waiting or running; after the end: completed, failed, cancelled or expired.
  result       jsonb, -- Result from the worker; null before the end.
  error        text, -- Error of the last failed attempt.
  attempts     integer, -- Number of attempts that count, including the running one.
  max_attempts integer, -- Maximum number of attempts.
  created_at   timestamp with time zone, -- When it was enqueued.
  updated_at   timestamp with time zone, -- When it last changed: an attempt began, ended or reported progress.
  scheduled_at timestamp with time zone, -- Earliest time at which it may start.
  started_at   timestamp with time zone, -- When the current attempt began; for an ended job, the last attempt.
  completed_at timestamp with time zone, -- When it ended, with any status; null before.
  worker_id    uuid, -- Agent that runs it or ran it last; see workers.
  worker       text, -- Name of that agent.
  fence        bigint, -- Fence of the running attempt, or of the last one.
  queue        text, -- Name of its queue.
  key          text, -- Key by which a fair queue takes turns; may be null.
  priority     integer, -- Higher comes first.
  labels       text[], -- Labels that a worker must have.
  reason       text, -- Why it did not complete: error, worker_lost, stalled, deadline, crash_loop, cancelled, replaced, dependency or start_by.
  percent      double precision, -- Progress of the running attempt, 0 to 100.
  message      text, -- Progress message of the running attempt.
  checkpoint   jsonb, -- Checkpoint that the last attempt left for the next one.
  cancel_at    timestamp with time zone, -- When the running attempt loses its fence because a cancellation was requested.
  start_by     timestamp with time zone, -- Time by which an attempt must begin; otherwise, the job expires. Null after its end.
  dedupe_key   text, -- Dedupe key; may be null.
  parent_id    uuid, -- Parent job in its tree; may be null.
  retry_of     uuid, -- Ended job that this job retries; may be null.
  retried_as   uuid, -- Job that retries this job; may be null.
  actor        text, -- Who enqueued it.
  ended_by     text, -- Who ended it; null before.
  root_id      uuid, -- Root of its tree; its own id if it has no parent.
  depth        integer, -- Number of jobs above it in its tree.
  after        uuid[], -- Jobs after which it starts.
  after_mode   text, -- all: starts after all of them; any: starts after one; null: starts after no others.
  on_failure   text, -- What to do if one of them does not complete: cancel, ignore or run; null: starts after no others.
  limits       jsonb, -- Limits that it names, with its cost for each.
  cause        text, -- What it waits for; null if it does not wait.
  locks        text[], -- Resources that it holds locked while it runs.
  tokens       jsonb, -- Fencing tokens of the locks that the current attempt acquired with its claim, by resource; null: none.
  project_id   bigint, -- The project.
  part         text, -- Where it is: open, completed or uncompleted.
  end_status   text, -- Its status if it has ended, which has statistics.
  past         jsonb, -- Attempts that ended, newest last.
  steps        jsonb, -- Finished steps of a job that has ended, in their order.
  traceparent  text -- The W3C trace context of the call that enqueued it, which its attempts continue; null: there is none.
);

-- Finished steps of jobs, including ended jobs.
create view coordinator.job_steps (
  job         uuid, -- The job.
  place       integer, -- Position in the order in which the job's steps finished, from 1.
  name        text, -- Name of the step.
  ordinal     integer, -- Number of the step among those of this name, from 1.
  kind        text, -- step: done by a worker; wait: outcome of a wait; answer: answer to a question.
  result      jsonb, -- Result of the step.
  fence       bigint, -- Fence of the attempt that finished the step or began the wait.
  actor       text, -- Who finished the step: the worker, the one who answered, or coordinator.
  finished_at timestamp with time zone, -- When it finished.
  project     text -- Name of the project.
);

-- Jobs: waiting, running, and retained ended ones.
create view coordinator.jobs (
  id           uuid, -- UUID, ordered by creation time.
  type         text, -- Type that a worker must have in its job_types.
  payload      jsonb, -- Any JSON value for the worker.
  status       text, -- queued, scheduled, waiting or running; after the end: completed, failed, cancelled or expired.
  result       jsonb, -- Result from the worker; null before the end.
  error        text, -- Error of the last failed attempt.
  attempts     integer, -- Number of attempts that count, including the running one.
  max_attempts integer, -- Maximum number of attempts.
  created_at   timestamp with time zone, -- When it was enqueued.
  updated_at   timestamp with time zone, -- When it last changed: an attempt began, ended or reported progress.
  scheduled_at timestamp with time zone, -- Earliest time at which it may start.
  started_at   timestamp with time zone, -- When the current attempt began; for an ended job, the last attempt.
  completed_at timestamp with time zone, -- When it ended, with any status; null before.
  worker_id    uuid, -- Agent that runs it or ran it last; see workers.
  worker       text, -- Name of that agent.
  fence        bigint, -- Fence of the running attempt, or of the last one.
  queue        text, -- Name of its queue.
  key          text, -- Key by which a fair queue takes turns; may be null.
  priority     integer, -- Higher comes first.
  labels       text[], -- Labels that a worker must have.
  reason       text, -- Why it did not complete: error, worker_lost, stalled, deadline, crash_loop, cancelled, replaced, dependency or start_by.
  percent      double precision, -- Progress of the running attempt, 0 to 100.
  message      text, -- Progress message of the running attempt.
  checkpoint   jsonb, -- Checkpoint that the last attempt left for the next one.
  cancel_at    timestamp with time zone, -- When the running attempt loses its fence because a cancellation was requested.
  start_by     timestamp with time zone, -- Time by which an attempt must begin; otherwise, the job expires. Null after its end.
  dedupe_key   text, -- Dedupe key; may be null.
  parent_id    uuid, -- Parent job in its tree; may be null.
  retry_of     uuid, -- Ended job that this job retries; may be null.
  retried_as   uuid, -- Job that retries this job; may be null.
  actor        text, -- Who enqueued it.
  ended_by     text, -- Who ended it; null before.
  project      text, -- Name of the project.
  root_id      uuid, -- Root of its tree; its own id if it has no parent.
  depth        integer, -- Number of jobs above it in its tree.
  after        uuid[], -- Jobs after which it starts.
  after_mode   text, -- all: starts after all of them; any: starts after one; null: starts after no others.
  on_failure   text, -- What to do if one of them does not complete: cancel, ignore or run; null: starts after no others.
  waiting_for  text, -- What it waits for: jobs, lock, limit, wait, answer or tree; null: it does not wait.
  limits       jsonb, -- Limits that it names, with its cost for each.
  locks        text[], -- Resources that it holds locked while it runs.
  tokens       jsonb, -- Fencing tokens of the locks that the current attempt acquired with its claim, by resource; null: none.
  traceparent  text -- The W3C trace context of the call that enqueued it, which its attempts continue; null: there is none.
);

-- Knowledge entries.
create view coordinator.knowledge_entries (
  project     text, -- Name of the project.
  key         text, -- Key, unique in its project.
  title       text, -- Title.
  content     text, -- The text.
  source_type text, -- Type of the source, chosen by callers, such as url or file; null: not given.
  source_url  text, -- URL of the source; null: not given.
  metadata    jsonb, -- JSON object of the caller; searches can filter by the texts, numbers and booleans in it.
  language    text, -- Language in which its words are searched.
  version     bigint, -- Number of its version: 1, 2, 3.
  epoch       text, -- Epoch in which the version was written.
  actor       text, -- Who wrote the version.
  created_at  timestamp with time zone, -- When it was first put.
  updated_at  timestamp with time zone, -- When it was last put.
  id          bigint -- Number of its document.
);

-- Held locks.
create view coordinator.lock_holders (
  resource      text, -- Locked resource: name:deploy, src/a.py, src/ or src/**/*.py.
  kind          text, -- name, path, directory or glob.
  mode          text, -- exclusive or shared.
  slots         integer, -- Number of slots of a counted lock; null for others.
  slot          integer, -- Number of the held slot, from 1; null for others.
  agent_id      uuid, -- Agent that holds it; see agents.
  agent         text, -- Name of the agent.
  fencing_token bigint, -- Fencing token; grows with each grant, even after a fail-over.
  acquired_at   timestamp with time zone, -- When it was granted.
  expires_at    timestamp with time zone, -- When the lease expires.
  project       text, -- Name of the project.
  owner         text, -- Owner within the agent, such as session/subagent; empty: the agent itself.
  job           uuid -- Job whose attempt holds it until the attempt ends; null: none.
);

-- Waiting tickets; the smallest number is served first.
create view coordinator.lock_waiters (
  ticket      bigint, -- Position in the queue. A ticket has one row for each of its resources.
  resource    text, -- What it waits for.
  mode        text, -- exclusive or shared.
  agent_id    uuid, -- Waiting agent; see agents.
  agent       text, -- Name of the agent.
  enqueued_at timestamp with time zone, -- When it began to wait.
  expires_at  timestamp with time zone, -- When it stops waiting.
  slots       integer, -- Number of slots of a counted lock; null for others.
  project     text, -- Name of the project.
  owner       text -- Waiting owner within the agent, such as session/subagent; empty: the agent itself.
);

-- Who waits for whom: for holders, and for the nearest earlier tickets. What those tickets wait for is listed only in their own rows.
create view coordinator.lock_waits_for (
  project      text, -- Name of the project.
  ticket       bigint, -- Waiting ticket.
  agent_id     uuid, -- Waiting agent; see agents.
  agent        text, -- Name of the waiting agent.
  resource     text, -- What it waits for.
  for_agent_id uuid, -- Agent in the way.
  for_agent    text, -- Name of the agent in the way.
  for_resource text, -- Resource that this agent holds or waits for.
  for_ticket   bigint, -- Earlier ticket; null: the agent holds the lock.
  owner        text, -- Waiting owner within the agent; empty: the agent itself.
  for_owner    text -- Owner in the way; empty: the agent itself.
);

-- Logs of each project, without their entries.
create view coordinator.logs_live (
  project    text, -- Name of the project.
  kind       text, -- Kind of its entries: message, step, observation, audit, or a kind chosen by callers.
  key        text, -- Key, unique within the kind.
  first_seq  bigint, -- Number of the first entry; lower entries are gone, except kept ones.
  last_seq   bigint, -- Last number given; p_expect is compared with it.
  count      bigint, -- Number of entries.
  epoch      text, -- Epoch in which last_seq was given.
  kept       boolean, -- True: all its entries are exempt from retention.
  updated_at timestamp with time zone -- When it was last appended to or changed.
);

-- Memories, including superseded ones.
create view coordinator.memories (
  project        text, -- Name of the project.
  memory_id      text, -- Hash of scope, context, lesson and tool.
  context        text, -- When the lesson applies; may be empty.
  lesson         text, -- What was learned.
  tool_name      text, -- Tool that the lesson is about; null: none.
  confidence     double precision, -- Current confidence, 0 to 100; it halves with every 90 days since the memory was last reinforced.
  created_at     timestamp with time zone, -- When it was first recorded.
  scope          text, -- Whom it concerns, in words chosen by callers; empty: everybody in the project.
  reinforcements integer, -- How often it was recorded.
  language       text, -- Language in which its words are searched.
  superseded_by  text, -- Memory that superseded it; null: it is current.
  actor          text, -- Who last recorded or superseded it.
  updated_at     timestamp with time zone -- When it was last recorded or superseded.
);

-- Messages of all sessions. Filter by project and session; otherwise all are read.
create view coordinator.messages (
  id         text, -- Unique id of the message.
  session_id bigint, -- Session; see sessions.
  seq        bigint, -- Number within the session.
  role       text, -- Role of its author: user, assistant, tool (the sender of a result) or another; null: not given.
  content    text, -- The content: text, or a JSON list of parts.
  tool_calls json, -- Tool calls in it, as written; null: none.
  metadata   json, -- Its metadata field; null: none.
  created_at timestamp with time zone, -- When it was appended.
  project    text, -- Name of the project.
  session    text, -- Key of the session.
  uid        text, -- Unique id chosen by the caller; null: none.
  tokens     integer, -- Number of model tokens, as given by its writer; by default one for four bytes.
  needs      bigint, -- Earliest message without which it is of no use, such as the call for a result; null: none.
  actor      text, -- Who appended it.
  data       json, -- The whole message. U+FFFD replaces NUL and lone surrogates.
  raw        text -- Exact text if it differs from data; otherwise null.
);

-- Observations of agents. Filter by project and agent; otherwise all are read.
create view coordinator.observations (
  id         text, -- Unique id of the observation.
  agent_id   text, -- Name of the agent.
  content    text, -- The text; JSON if it is not a text.
  created_at timestamp with time zone, -- When it was appended.
  project    text, -- Name of the project.
  seq        bigint, -- Number among the agent's observations.
  uid        text, -- Unique id chosen by the caller; null: none.
  actor      text, -- Who appended it.
  data       json, -- The content as JSON. U+FFFD replaces NUL and lone surrogates.
  raw        text -- Exact text if it differs from data; otherwise null.
);

-- Current feature lists of projects.
create view coordinator.project_features (
  id         bigint, -- Number of the document.
  content    jsonb, -- The list; U+FFFD replaces what jsonb rejects. document_get returns the exact text.
  updated_at timestamp with time zone, -- When it was last changed.
  project    text, -- Name of the project.
  list       text, -- Key of the list.
  version    bigint -- Number of the latest version.
);

-- The projects that the reader may use.
create view coordinator.projects_live (
  project     text, -- Name of the project.
  description text, -- One-line description; may be empty.
  created_at  timestamp with time zone, -- When it was created.
  paths       text, -- How locks compare paths: exact, normal (in Unicode normal form C) or caseless.
  username    text, -- User who owns the project; null: nobody.
  title       text, -- One-line title; may be empty.
  settings    jsonb, -- JSON object of the caller.
  updated_at  timestamp with time zone -- When it was last changed.
);

-- Job queues, with their policies and numbers of jobs.
create view coordinator.queues_live (
  project             text, -- Name of the project.
  queue               text, -- Name of the queue.
  fair_by             text, -- key: keys take turns; none: jobs are claimed in order of priority and time.
  ageing              interval, -- How long a job waits to gain one step of priority; null: strict priority.
  weights             jsonb, -- Keys whose share of a fair queue is not 1, with their shares.
  max_waiting         integer, -- Maximum number of waiting jobs; null: no limit.
  max_waiting_per_key integer, -- Maximum number of waiting jobs per key; null: no limit.
  events              text, -- call: one event for each call and transition; job: one for each job.
  paused_at           timestamp with time zone, -- When it was paused; null: it is not.
  paused_by           text, -- Who paused it.
  pause_reason        text, -- Why it was paused.
  queued_count        integer, -- Jobs ready to be claimed; at most 10,000 are counted.
  running_count       integer, -- Running jobs.
  unplaced_count      bigint, -- Approximate number of queued jobs that are still placed by an earlier policy; null: none.
  actor               text, -- Who created it or last changed it.
  created_at          timestamp with time zone, -- When it was first used or set.
  updated_at          timestamp with time zone -- When it was last changed.
);

-- Rules of the projects that the reader may use, and rules for all projects.
create view coordinator.rules (
  project    text, -- Project to which it applies; null: all projects.
  when_set   text, -- Last segment of the key that triggers the rule when it is set.
  clears     text[], -- Last segments of the neighbouring keys that are then deleted.
  created_at timestamp with time zone -- When the rule was created or last changed.
);

-- Conversations and runs of work, with the names of their projects and users.
create view coordinator.sessions_live (
  project     text, -- Name of the project.
  session     text, -- Key of the session.
  username    text, -- User who owns the session; null: nobody.
  title       text, -- One-line title; may be empty.
  mission     text, -- What the session is to achieve; may be empty.
  status      text, -- active, archived (appends and puts are refused), or another word chosen by the caller.
  context     jsonb, -- JSON object of the caller.
  forked_from text, -- Key of the session that it was copied from; null: none.
  actor       text, -- Who created it.
  created_at  timestamp with time zone, -- When it was created.
  updated_at  timestamp with time zone -- When it last changed or got an append or put, to about a minute.
);

-- Signals that are set and have not expired.
create view coordinator.signals_live (
  project    text, -- Name of the project.
  key        text, -- Key; segments are separated by /.
  value      jsonb, -- Any JSON value.
  version    bigint, -- Version; grows with each set, even after a fail-over. Compare it only for equality.
  critical   boolean, -- True: it never expires.
  agent_id   uuid, -- Agent with which an ephemeral signal ends; null for others.
  actor      text, -- Who last set it.
  created_at timestamp with time zone, -- When the key was created.
  updated_at timestamp with time zone, -- When it was last set.
  expires_at timestamp with time zone -- When it expires; null if critical.
);

-- Current state of each session.
create view coordinator.states (
  id         bigint, -- Number of the document.
  session_id bigint, -- Session; see sessions.
  state_json jsonb, -- The state; U+FFFD replaces what jsonb rejects. document_get returns the exact text.
  version    bigint, -- Number of the latest version.
  timestamp  timestamp with time zone, -- When it was saved.
  project    text, -- Name of the project.
  session    text -- Key of the session.
);

-- Current todo lists.
create view coordinator.todo_lists (
  todolist_id text, -- Key of the list.
  session_id  bigint, -- Session that it belongs to; null: none.
  plan_json   jsonb, -- The list; U+FFFD replaces what jsonb rejects. document_get returns the exact text.
  status      text, -- Status of the list, or the status derived from its items: COMPLETED (all are), PENDING (none has begun) or IN_PROGRESS.
  created_at  timestamp with time zone, -- When it was first put.
  updated_at  timestamp with time zone, -- When it was last changed.
  project     text, -- Name of the project.
  version     bigint -- Number of the latest version.
);

-- Webhook deliveries. Internal: managers call webhook_deliveries.
create view coordinator.webhook_deliveries_live (
  project      text, -- Name of the project.
  webhook      bigint, -- Number of the webhook.
  delivery     bigint, -- Number of the delivery.
  message      text, -- Header webhook-id of each attempt.
  type         text, -- Type of the event; reset: events are gone; test: a test delivery.
  key          text, -- Key of the event.
  at           timestamp with time zone, -- When the event happened (database clock).
  status       text, -- waiting, delivered, or dead: no further attempt is made.
  attempts     integer, -- Number of ended attempts.
  due_at       timestamp with time zone, -- When the next attempt is due; null: the delivery has ended.
  attempted_at timestamp with time zone, -- When the last attempt ended (database clock).
  response     integer, -- HTTP status of the last response; null: there was none.
  error        text, -- Why the last attempt failed.
  seconds      double precision -- Duration of the last attempt.
);

-- Webhooks without their secrets. Internal, since a URL may contain a secret as well: managers call webhook_list.
create view coordinator.webhooks_live (
  project       text, -- Name of the project.
  webhook       bigint, -- Number of the webhook.
  url           text, -- URL that receives the events.
  topics        text[], -- Event types, such as lock.broken or signal.*.
  status        text, -- active, failing (the last attempt failed), paused, or disabled.
  waiting_count integer, -- Waiting deliveries, up to a few hundred; further events wait in the log.
  dead_count    bigint, -- Dead deliveries, which can be redriven.
  delivered_at  timestamp with time zone, -- When an event was last delivered.
  failing_since timestamp with time zone, -- Start of the current series of failed attempts; null: the last attempt succeeded.
  error         text, -- Why the last attempt failed; null: it succeeded.
  before_until  timestamp with time zone, -- Until when the previous secret also signs; null: there is none.
  paused_at     timestamp with time zone, -- When it was paused or disabled; null: it is active.
  paused_by     text, -- Who paused it.
  pause_reason  text, -- Why it was paused or disabled.
  actor         text, -- Who added it.
  created_at    timestamp with time zone, -- When it was added (database clock).
  updated_at    timestamp with time zone -- When it was last rotated, paused or resumed (database clock).
);

-- Workers: agents with job types.
create view coordinator.workers (
  id            uuid, -- Id of the agent.
  project       text, -- Name of the project.
  name          text, -- Name of the agent.
  status        text, -- busy (it has jobs), idle, or lost (its heartbeat is overdue, and its jobs are rescued).
  last_seen     timestamp with time zone, -- When it last sent a heartbeat.
  job_types     text[], -- Job types that it runs.
  labels        text[], -- Labels of the worker.
  current_job   uuid, -- Job that it has held longest.
  running       integer, -- Number of its jobs.
  metadata      jsonb, -- JSON object chosen by the agent.
  registered_at timestamp with time zone -- When it registered.
);
