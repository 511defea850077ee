"""One tunnel's way to a gateway: addresses, handshakes, CONNECT, and the tunnel's life."""
