"""The doctor: finds problems of an installation, and says how to fix them.

The database checks itself: ``doctor_run`` (``sql/functions/doctor/``). This package adds what only a client can see:
its connections, a pooler in between, the clocks of two machines, its own schema files, a daemon.

Guarantees: it changes nothing. Every check ends within ``CHECK_S`` seconds, and every connection attempt within
``CONNECT_S``; if the database stops responding, the remaining checks are not run. A check that fails is a finding, too.

To add a check of the database, add a row and a function to a file of ``sql/functions/doctor/``. To add a check of the
client, add a function to ``checks`` and a row to ``checks.CHECKS``. Both need an entry in ``docs/doctor.md``.
"""
