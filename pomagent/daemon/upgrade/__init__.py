"""Replaces the process of the service by a new one while both run, so that no client is refused and no session ends.

The old process (``upgrade``) starts a new one of the installed version (``new_process``, ``launch``). The new one
proves that it can serve before the old one gives up anything (``takeover``). They exchange messages over a
``channel``. Once the new one is the main process, the old one finishes its sessions (``retirement``), which the new one
supervises (``old_processes``). ``requests`` decides which requests for an upgrade are accepted.
"""
