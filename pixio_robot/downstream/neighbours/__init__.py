"""k nearest neighbours: how often the images next to an image are of its class."""
