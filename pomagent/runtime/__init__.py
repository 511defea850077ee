"""The process's own machinery: the hub, greenlets, threads, deadlines, signals and sd_notify."""
