"""Encoders compared by the policies that stand on them."""
