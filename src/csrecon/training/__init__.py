"""Training: recipe, data, loop, checkpoint. `csrecon train NAME` runs a recipe."""
