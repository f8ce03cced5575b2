"""Bundle the weights of a finished run: python training/bundle.py RUN

Copies RUN/weights.safetensors into the package, writes the stored values of the self-test anew
when the default network changes, and prints what the entry in models.yaml has to say. The golden
images of the tests are written anew by `python -m tests.test_golden`.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from csrecon.evaluation import selftest
from csrecon.io import files
from csrecon.training import checkpoint
from csrecon.training.recipe import Recipe
from csrecon.zoo import cards, weights_file


def main() -> None:
    """Copy and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run of `csrecon train`")
    run = parser.parse_args().run
    text = (run / checkpoint.RECIPE).read_text(encoding="utf-8")
    name = Recipe.model_validate_json(text).model
    source = run / "weights.safetensors"
    target = cards.BUNDLED / f"{name}.safetensors"
    if weights_file.read_blueprint(source) != cards.card(name).blueprint():
        sys.exit(f"{source}: was not trained for {name} as models.yaml describes it.")
    shutil.copyfile(source, target)
    print(
        f"    weights:\n      file: {target.name}\n      sha256: {files.sha256_file(target)}\n"
        f"      bytes: {target.stat().st_size}"
    )
    if name == selftest.MODEL:
        np.savez_compressed(selftest.GOLDEN, **selftest.compute(torch.device("cpu"), target))


if __name__ == "__main__":
    main()
