"""Execution of a reconstructor on this machine: device, precision, tiles, memory."""
