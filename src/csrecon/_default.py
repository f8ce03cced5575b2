"""The models and the denoiser that commands and functions use if none is named."""

MODEL = "frcoast"  # block sampling, and what `bench` and `compare` measure themselves
KSPACE = "mri-frcoast"  # k-space, and every complex image
IDENTITY = "rdenoise"
COMPLEX_IDENTITY = "denoise"
DENOISER = "tv"
