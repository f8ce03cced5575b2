"""Reconstructors, from a measurement to an image: unfolding networks and classical solvers."""
