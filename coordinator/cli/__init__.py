"""The command line, ``coordinator <noun> <verb>``: arguments in, text or JSON out, exit codes.

A noun is one file in ``commands/``: a ``command`` made by ``noun``, with a function for each verb. No other file
mentions it.

Guarantees: modules that are slow to import are imported where they are used, so help is cheap and a call costs little.
Every error is printed as one message with a hint, and sets an exit code (``docs/errors.md``). There is no stack trace,
except with COORDINATOR_DEBUG=1.
"""
