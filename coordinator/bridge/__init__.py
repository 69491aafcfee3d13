"""``agent-bridge``: the command that the agents of recac call, on a coordinator.

Its arguments, output and exit codes are those of recac's own program; ``docs/agent-bridge.md`` lists them. A command
makes as few calls as possible, and imports only what these need, because agents start it often.

On failure: one line on standard error and exit code 1 for every error, because recac's agents know no other code.
"""
