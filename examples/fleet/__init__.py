"""A fleet in miniature: a manager and six agents count what is in a source tree; one agent is killed half-way.

usage: python -m examples.fleet [PATH] [--url postgresql://…] [--events FILE]

| module   | what it is                                                                    |
|----------|-------------------------------------------------------------------------------|
| __main__ | starts a daemon and the processes, kills an agent, tells the outcome          |
| manager  | the manager's process: gives shares of the files out, rejects a result        |
| agent    | an agent's process: claims shares, counts, checks the results of others       |
| board    | the state of every share, as the events tell it                               |
| work     | the files and the counting                                                    |
| outcome  | who did what, from the events alone                                           |

The processes know of each other only through the coordinator: signals are the shared state, directives the orders, and
events what everybody follows. No process polls.
"""
