"""Notices a change of the configuration, validates it and compares it with what runs."""
