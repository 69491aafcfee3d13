"""The command line, ``coordinator <noun> <verb>``: arguments in, text or JSON out, exit codes.

A noun is one file in ``commands/``: a ``command`` made by ``noun`` with a function for each verb. Nothing else names it.

Guarantees: what is slow to import is imported where it is used, so that help costs nothing and a call little; every
error leaves as one message with a hint and an exit code (``docs/errors.md``), and no stack trace (except with
COORDINATOR_DEBUG=1).
"""
