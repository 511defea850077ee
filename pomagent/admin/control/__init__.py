"""The control socket: HTTP on a Unix socket, through which permitted local users inspect and change the agent."""
