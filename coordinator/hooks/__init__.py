"""Hooks of coding agents: a session of an unmodified tool holds locks on the files that it edits.

A tool calls ``coordinator hook run``, or ``POST /v1/hooks/<dialect>``, with its own JSON. A dialect parses the payload
into an event, ``decide`` returns a verdict, and the dialect formats the verdict for the tool. Dialects make no
decisions, and ``decide`` knows no dialects.
"""
