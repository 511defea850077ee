"""Inspects running tests: leaks, secrets, processes and metrics."""
