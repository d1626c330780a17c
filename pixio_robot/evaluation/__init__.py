"""Rollouts of policies, what their successes prove, and the report of a run."""
