"""Files in and out: arrays, images, downloads. Nothing here knows of measurements."""
