"""Artifacts: one file, read with torch alone."""
