"""Deployment: a bundle and a bank brought to an aircraft, proven there, switched to in one step, and back."""
