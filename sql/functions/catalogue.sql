-- The catalogue is emptied here and filled again by the files that follow, each with the events, rights and limits of its
-- own noun. All of them run in one transaction, so readers never see it empty.

delete from coordinator.event_types;
delete from coordinator.rights;
delete from coordinator.limits;
