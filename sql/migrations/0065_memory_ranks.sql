-- The confidence of a memory is a factor of its rank by words, before rankings are merged, so document_search has a parameter more.

drop function if exists coordinator.document_search(bigint, text, tsquery, tsquery, double precision[]);
