"""Runs the real agent on a test's bastion host: starts, edits, watches and stops it."""
