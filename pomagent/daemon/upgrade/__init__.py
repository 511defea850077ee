"""One process of the service replaces another while both run: nobody is refused, and sessions stay where they are.

The old process (``upgrade``) starts a new one of whatever version is installed (``successor``, ``launch``), which
proves that it can serve before anything is given up (``takeover``). They talk over a ``channel``. Once the new one is
the main process, the old one finishes its sessions (``retirement``), and the new one keeps an eye on it
(``predecessors``).
"""
