"""What a run will need before it starts: memory, operations, traffic and time, from its trace."""
