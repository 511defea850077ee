"""What operators see and change while the agent runs."""
