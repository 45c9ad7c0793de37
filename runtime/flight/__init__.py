"""One flight: the run, its directory and journal, its health and its service."""
