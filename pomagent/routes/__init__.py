"""The routes that run: started, changed, and removed once their sessions have ended."""
