"""What a frame costs: latency, throughput, memory, energy; peers side by side; budgets."""
