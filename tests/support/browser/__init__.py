"""Browsers, real and scripted, and what they show."""
