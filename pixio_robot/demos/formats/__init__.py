"""Conversion between the store and other formats."""
