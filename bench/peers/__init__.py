"""Peers: each the way its own users run it, in a process of its own, beside our engines."""
