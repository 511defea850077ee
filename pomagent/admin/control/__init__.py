"""The control socket: HTTP on a Unix socket, for the people and programs of this host that may steer the agent."""
