"""What only the device knows: board, power, clocks, temperatures. Standard library only."""
