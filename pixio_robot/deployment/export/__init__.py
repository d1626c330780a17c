"""From a checkpoint to a checked file."""
