"""Demonstrations recorded by a person."""
