"""Tasks of each simulator as gymnasium environments."""
