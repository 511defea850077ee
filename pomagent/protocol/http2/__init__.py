"""HTTP/2 (RFC 9113) as far as one tunnel on a connection of its own needs it, without I/O.

``connection`` is the state of both sides, ``splitter`` finds the frames in what arrives, ``frames`` is their layout,
``rules`` says which may come when, ``flow`` keeps the windows, ``heads`` the headers, ``exchange`` the CONNECT.
"""
