"""HTTP/2 (RFC 9113) as far as one tunnel on its own connection needs it, without I/O.

``connection`` holds the state of both sides, ``control`` answers the connection's own frames, ``splitter`` finds frames
in received bytes, ``frames`` defines their layout, ``rules`` which frames may come when, ``flow`` the windows,
``headers`` the header blocks, ``exchange`` the CONNECT.
"""
