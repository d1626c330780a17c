"""How fast pretraining is, rung by rung, from a plain trainer to this package's."""
