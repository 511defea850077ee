"""``agent.toml``: its keys, its problems with their lines, and the settings that it means.

``load`` reads and validates. ``model`` declares the keys. ``tables`` validates shapes. ``gateways``, ``references`` and
``resolve`` check meanings and build ``pomagent.settings``. All of it blocks and belongs in a thread pool. This module
imports nothing, so that a command that needs only the path of the file (``default_paths``) does not load the model.
"""
