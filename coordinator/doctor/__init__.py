"""The doctor: finds out what is wrong with an installation, and says what to do about it.

What can be seen in the database, it asks of the database: ``doctor_run`` (``sql/functions/doctor/``). Here is what only a client sees: its
connections, a pooler between, the clocks of two machines, its own files of the schema, a daemon.

Guarantees: it changes nothing. Every check ends within ``CHECK_S`` seconds, and every connection attempt within ``CONNECT_S``; where the
database stops to answer, the checks that are left are not begun. A check that fails is a finding, too.

To add a check of the database, add a row and a function to a file of ``sql/functions/doctor/``. To add one that only a client can make, add
a function to ``checks`` and a row to ``checks.CHECKS``. Both need an entry in ``docs/doctor.md``.
"""
