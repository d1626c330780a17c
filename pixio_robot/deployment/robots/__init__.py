"""Robots that an artifact can drive: simulated tasks, and everything that LeRobot knows."""
