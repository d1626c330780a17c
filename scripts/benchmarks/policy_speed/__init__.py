"""How fast our policies train beside LeRobot's own, on the same demonstrations in the same process."""
