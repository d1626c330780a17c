"""How fast windows come out of a demonstration store, beside a memory map and LeRobot's dataset, and in how much memory."""
