"""Stand-ins that a test drives by hand: a clock, dice, a log, tunnels and whoever opens them."""
