"""Peers: each run as its own users run it, in a process of its own."""
