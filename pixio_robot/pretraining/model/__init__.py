"""The masked autoencoder and how its blocks are executed."""
