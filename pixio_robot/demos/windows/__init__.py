"""Training windows over a store, and how often each is drawn."""
