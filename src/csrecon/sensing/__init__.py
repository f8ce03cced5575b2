"""What is measured and how: linear operators, measurements, noise, and their files."""
