"""The command line: how a job is configured, checked and started."""
