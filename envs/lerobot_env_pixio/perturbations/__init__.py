"""Named changes of how a task looks."""
