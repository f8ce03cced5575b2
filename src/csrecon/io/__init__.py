"""File input and output: arrays, images, downloads; independent of measurements."""
