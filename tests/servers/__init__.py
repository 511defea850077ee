"""Real servers behind the gateway's routes.

Each module has a context manager that runs one server on a free loopback port, with its data in its own directory, and
ends it by its pid. A program that is not installed skips the test. In CI that fails the run.
"""
