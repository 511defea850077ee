"""Browser login for people (wire contract §4). All of it blocks: for commands and for threads, never for the hub.

``flow`` is one login from the sign-in URL to the token; ``callback`` listens for the browser that comes back,
``redirect`` knows what it must bring, ``page`` is what it shows, ``browser`` opens one. ``cache`` keeps tokens,
``stored`` knows whose: the user's, or the running agent's. ``source`` decides between cache and login for ``pomagent
tcp``; ``people`` does for it what it decides.
"""
