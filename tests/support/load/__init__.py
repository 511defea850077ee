"""Traffic that goes on whatever happens to the agent."""
