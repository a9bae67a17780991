"""Measurements of the project: speed and quality, with stored results. Not part of the package."""
