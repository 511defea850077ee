"""Traffic that continues whatever happens to the agent."""
