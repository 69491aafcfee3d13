"""The sidecar: the HTTP API beside one agent, for this machine only; it proves that the agent is alive."""
