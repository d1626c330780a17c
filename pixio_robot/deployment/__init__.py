"""Deployment: a policy or an encoder as one file, checked against the eager path, run on a robot or served to one."""
