"""Feed-forward 3D from two views: a small transformer on frozen tokens."""
