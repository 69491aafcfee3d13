"""The sidecar: the HTTP face beside one agent, on this machine only, with a proof that the agent's place lives."""
