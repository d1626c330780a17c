"""Images with depth or classes: simulated scenes, and public data sets in the folders that they come in."""
