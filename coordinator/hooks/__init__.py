"""Hooks of coding agents: a session of an unmodified tool holds the files that it edits.

A tool calls ``coordinator hook run``, or ``POST /v1/hooks/<dialect>``, with its own JSON. A dialect reads the payload as an event,
``decide`` returns a verdict, and the dialect writes the verdict as the tool expects it. Dialects decide nothing, and ``decide``
knows no dialect.
"""
