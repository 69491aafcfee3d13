-- The ids of epochs say in which order they began, so that a server knows a cursor that is of a later epoch than its own: it is behind, and nothing
-- was lost. Those of before are random, and count as the earliest. An epoch that is in progress keeps its id.
create sequence coordinator.epoch_begun as bigint;
comment on sequence coordinator.epoch_begun is 'The id of the present epoch: when it began (milliseconds since 2026), and 20 random bits. Not called yet: the id is that of epoch_mark. Set by epoch_begin, outside of transactions, before epoch_mark.';

-- It returns the epoch, too.
drop function if exists coordinator.leader_renew(integer, interval);
