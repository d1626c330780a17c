"""Deployment: TorchScript artifacts, exported and checked against the eager path."""
