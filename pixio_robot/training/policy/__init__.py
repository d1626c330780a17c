"""The policy that is trained: built, started, saved, selected."""
