"""Sensing: linear operators, measurements, noise, and measurement files."""
