"""What a network costs: parameters, bytes, time, memory, operations."""
