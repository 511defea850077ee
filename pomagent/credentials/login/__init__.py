"""Browser login (wire contract §4). Everything here blocks: for commands and threads, never for the hub.

``flow`` runs one login from the sign-in URL to the token. ``browser`` opens the page, ``callback`` listens for the
redirected browser, ``redirect`` checks its request, and ``page`` is the answer. ``cache`` stores tokens, and ``stored``
selects the user's cache or the agent's. For ``pomagent tcp``, ``source`` decides between cache and login,
``cluster_login`` carries that out, and ``on_demand`` connects both to the route.
"""
