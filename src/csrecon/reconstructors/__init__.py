"""What turns a measurement into an image: unfolding networks and classical solvers."""
