"""The package, the unit and the agent in a booted Debian: systemd is real, and no network but loopback is there."""
