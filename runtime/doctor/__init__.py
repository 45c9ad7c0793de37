"""Checks of this machine before a flight, and the memory plan."""
