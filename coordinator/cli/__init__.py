"""The command line, ``coordinator <noun> <verb>``: arguments in, text or JSON out, exit codes.

A noun is one file in ``commands/``: a ``command`` made by ``noun`` with a function for each verb. Nothing else names it.

Guarantees: what is slow to import is imported where it is used, so that help costs nothing and a call little; every
error leaves as one message with a hint and the exit code of ``coordinator.errors``, and no stack trace ever (but with
COORDINATOR_DEBUG=1).

| exit | meaning                                                                                  |
|------|------------------------------------------------------------------------------------------|
| 0    | done; also a tail that was ended by Ctrl-C or SIGTERM, and output that nobody reads on    |
| 1    | a bug, or an error that has no place below                                               |
| 2    | usage: an unknown noun, verb or option, a missing or surplus argument                    |
| 3    | not found                                                                                |
| 4    | conflict or lost                                                                         |
| 5    | invalid: a malformed value or one over a limit                                           |
| 6    | the schema and this program do not fit                                                   |
| 7    | database unavailable                                                                     |
| 8    | a wait timed out                                                                         |
| 78   | configuration: a malformed setting, wherever it came from                                |
| 130  | ended by Ctrl-C, or answered no                                                          |
| else | "lock run": that of its command, or 128 and the number of the signal that ended either   |
"""
