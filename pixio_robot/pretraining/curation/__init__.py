"""Scores that decide how often an image is seen."""
