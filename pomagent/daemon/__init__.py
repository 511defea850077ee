"""One process from start to exit: wiring, signals, systemd, drain and upgrades."""
