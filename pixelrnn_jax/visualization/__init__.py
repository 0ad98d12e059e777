"""Visualization: PNG files of images, and diagrams."""
