"""A fleet in miniature: a manager, four coders and a QA agent count the lines, functions and TODOs of a source tree.

usage: python -m examples.fleet [PATH] [--url postgresql://…] [--record FILE]

| module   | content                                                                                   |
|----------|-------------------------------------------------------------------------------------------|
| __main__ | starts a daemon and the processes, kills a coder, restarts the daemon, shows the outcome  |
| manager  | divides the files into shares, enqueues a job for each, and signs off                     |
| coder    | counts a share while it holds the lock on the result                                      |
| qa       | counts again, and rejects results that differ, with the reason                            |
| work     | the files, the counting, and the names that the processes share                           |
| outcome  | who did what, read from the stored state alone                                            |

The processes communicate only through the coordinator: jobs are orders, artifacts are results, messages are the
conversation, and signals are decisions. Each process may end at any moment, and so may the daemon: stored messages and
results stay, and no work is done twice. docs/tutorials/fleet.md explains it step by step.
"""
