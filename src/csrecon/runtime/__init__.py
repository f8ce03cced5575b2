"""How a reconstructor runs on this machine: device, precision, tiles, memory."""
