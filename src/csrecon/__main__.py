"""`python -m csrecon`: the command line, as torchrun starts it."""

from csrecon.cli import main

main()
