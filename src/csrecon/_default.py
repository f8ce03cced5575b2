"""The model that commands and functions use if none is named."""

MODEL = "frcoast"
