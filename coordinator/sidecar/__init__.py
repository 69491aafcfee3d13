"""The sidecar: the HTTP API for one agent, on the agent's machine only; it proves that the agent is alive."""
