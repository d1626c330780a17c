"""Episodes of a policy in simulation."""
