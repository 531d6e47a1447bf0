"""What every room may use: the types that travel, errors, clock, tasks, bus. Knows no room."""
