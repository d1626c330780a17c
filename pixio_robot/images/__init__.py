"""Arithmetic on images: normalisation, resizing, crops, changes of colour and surface."""
