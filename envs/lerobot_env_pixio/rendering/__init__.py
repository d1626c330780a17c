"""Camera frames of a simulation, and named ways of drawing it."""
