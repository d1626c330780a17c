"""Frozen linear probes: what an encoder's tokens say about a scene, read out by linear maps fitted in closed form."""
