"""Byte streams, TLS, and what the kernel is asked about a connection."""
