"""Inference: what a model with parameters says about images, and draws."""
