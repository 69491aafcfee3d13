-- process_register shares the liveness lock with the former session of the process. Sessions that began before hold it exclusively.

comment on table coordinator.processes is 'Processes that prove by a shared, session-level advisory lock (1129267026, id) that they are alive: daemons, sidecars, clients. Written by process_register and agent_reap.';
