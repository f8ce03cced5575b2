"""The model and the denoiser that commands and functions use if none is named."""

MODEL = "frcoast"
DENOISER = "tv"
