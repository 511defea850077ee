"""The real agent on a bastion of a test: started, edited, watched, stopped."""
