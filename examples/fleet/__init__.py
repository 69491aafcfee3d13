"""A fleet in miniature: a manager, four coders and QA count what is in a source tree.

usage: python -m examples.fleet [PATH] [--url postgresql://…] [--record FILE]

| module   | what it is                                                                                |
|----------|-------------------------------------------------------------------------------------------|
| __main__ | starts a daemon and the processes, kills a coder, restarts the daemon, shows the outcome  |
| manager  | plans shares of the files, enqueues a job for each, and signs off                         |
| coder    | counts a share while it holds the lock on the result                                      |
| qa       | counts again; rejects what differs, with the reason                                       |
| work     | the files, the counting, and what the processes call things                               |
| outcome  | who did what, from the state alone                                                        |

The processes know of each other only through the coordinator: jobs are the orders, artifacts the results, messages what was
said, and signals what is decided. Each may end at any moment, and so may the daemon: what was said and done stays, and nothing is
done twice. docs/tutorials/fleet.md explains it step by step.
"""
