"""One command that proves on a device what only a device can show."""
