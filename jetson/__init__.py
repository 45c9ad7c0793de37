"""Device information: board, power, clocks, temperatures. Standard library only."""
