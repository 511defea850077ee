"""Local sockets: bind them, accept connections, hand them over, and quarantine routes that cannot be bound."""
