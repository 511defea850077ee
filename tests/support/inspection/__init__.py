"""What is looked at while and after tests run: leaks, secrets, processes, metrics."""
