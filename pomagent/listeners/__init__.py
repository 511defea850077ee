"""Local sockets: bound, accepted from, handed over, and quarantined where that fails."""
