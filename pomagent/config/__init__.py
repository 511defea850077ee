"""``agent.toml``: its keys, its problems with their lines, and the settings that it means.

``load`` reads and validates; ``model`` declares the keys; ``tables`` validates shapes; ``gateways``, ``references`` and
``resolve`` check meanings and build ``pomagent.settings``. All of it blocks: it belongs into a thread pool. Nothing is
imported here: who only wants to know where the file is (``usual_places``) pays for no model.
"""
