-- webhook_claim takes how many slots webhooks may have to which nothing was delivered yet.

drop function if exists coordinator.webhook_claim(integer, integer, interval, uuid, bigint[]);
