"""The store of demonstrations: one zarr v3 group."""
