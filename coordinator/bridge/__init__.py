"""``agent-bridge``: the command that the agents of recac call, on a coordinator.

Its arguments, its output and its exit codes are those of recac's own program; ``docs/agent-bridge.md`` has all of them. A command makes
as few calls as it needs, and imports only what these need: agents start it often.

On failure: one line on standard error and exit code 1, whatever went wrong, because recac's agents know no other.
"""
