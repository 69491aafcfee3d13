-- Search: what is compared of memories and knowledge. Their values are documents.

create table coordinator.document_words (
  document_id bigint      not null,
  project_id  bigint      not null,
  kind        text        collate "C" not null,
  updated_at  timestamptz not null,
  words       tsvector    not null,
  constraint document_words_pkey primary key (document_id),
  constraint document_words_document_fkey foreign key (document_id) references coordinator.documents on delete cascade);
-- Searches read the list of pending entries whole, so it is short.
create index document_words_words_idx on coordinator.document_words using gin (words) with (gin_pending_list_limit = 256); -- search_rare
create index document_words_recent_idx on coordinator.document_words (project_id, kind, updated_at desc); -- search_recent
comment on table  coordinator.document_words             is 'Words of the documents that can be searched, beside the narrow headers that every put updates.';
comment on column coordinator.document_words.document_id is 'The document.';
comment on column coordinator.document_words.project_id  is 'Its project.';
comment on column coordinator.document_words.kind        is 'Its kind: memory or knowledge.';
comment on column coordinator.document_words.updated_at  is 'When its latest version was written.';
comment on column coordinator.document_words.words       is 'Its words, and a lexeme for its project and kind and for each of its fields, which begins with U+0001.';

create table coordinator.document_embeddings (
  document_id bigint      not null,
  project_id  bigint      not null,
  kind        text        collate "C" not null,
  updated_at  timestamptz not null,
  fields      tsvector    not null,
  digest      text        not null,
  embedding   real[]      not null,
  constraint document_embeddings_pkey primary key (document_id),
  constraint document_embeddings_document_fkey foreign key (document_id) references coordinator.documents on delete cascade);
alter table coordinator.document_embeddings alter column embedding set storage main; -- searches read all of a project
create index document_embeddings_recent_idx on coordinator.document_embeddings (project_id, kind, updated_at desc); -- search_near
comment on table  coordinator.document_embeddings             is 'Embeddings that callers gave for documents. Only a search by embedding needs the extension vector.';
comment on column coordinator.document_embeddings.document_id is 'The document.';
comment on column coordinator.document_embeddings.project_id  is 'Its project.';
comment on column coordinator.document_embeddings.kind        is 'Its kind: memory or knowledge.';
comment on column coordinator.document_embeddings.updated_at  is 'When its latest version was written.';
comment on column coordinator.document_embeddings.fields      is 'The lexemes of document_words that begin with U+0001.';
comment on column coordinator.document_embeddings.digest      is 'Hash of the text of which it is the embedding. A version with another text deletes the row.';
comment on column coordinator.document_embeddings.embedding   is 'The numbers, in single precision.';

create type coordinator.document_text as (heading text, body text, language text);
comment on type coordinator.document_text is
  'What a search compares of a document: its heading, which counts more, its body, and their language.';

create type coordinator.memory_match as (
  project text, memory_id text, context text, lesson text, tool_name text, confidence double precision, created_at timestamptz,
  scope text, reinforcements integer, language text, superseded_by text, actor text, updated_at timestamptz,
  rank double precision, snippet text, partial boolean);
comment on type coordinator.memory_match is
  'A memory that a search found. rank: the greater, the better, to be compared within one search; snippet: where its words are, between **; partial: so much was found that only the newest matches were ranked.';

create type coordinator.knowledge_match as (
  project text, key text, title text, source_type text, source_url text, metadata jsonb, language text, version bigint, actor text,
  created_at timestamptz, updated_at timestamptz, rank double precision, snippet text, partial boolean);
comment on type coordinator.knowledge_match is
  'An entry of knowledge that a search found, without its content. rank: the greater, the better, to be compared within one search; snippet: where its words are, between **; partial: so much was found that only the newest matches were ranked.';
