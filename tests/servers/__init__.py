"""Real servers behind the gateway's routes: what the agent is for.

Each is a context manager that runs one server on a free loopback port, with its data in a directory of its own, and
ends it by its pid. A program that is not installed skips the test; in CI that fails the run.
"""
