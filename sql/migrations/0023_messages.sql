-- Messages: what ties an entry of a conversation to others. The entries themselves are a log.

create type coordinator.message_trait as (role text, needs_seq bigint, links text[]);
comment on type coordinator.message_trait is
  'Who speaks in a message; the earliest entry without which it is nothing; and what ties it to others, see functions/message.sql.';

create type coordinator.message_link as (seq bigint, link text, on_seq bigint);
comment on type coordinator.message_link is
  'An entry, one of its links, and the entry that this leads back to, null if there is none; link null: needs_seq leads there.';
