"""A policy under changes of how its task looks."""
