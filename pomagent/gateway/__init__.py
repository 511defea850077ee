"""The path to a gateway: addresses, handshakes, CONNECT, and one tunnel's life."""
