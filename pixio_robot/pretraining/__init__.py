"""Pretraining of encoders as block-masked autoencoders: images, model, training loop, pictures."""
