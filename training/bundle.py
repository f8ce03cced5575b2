"""Bundle the weights of a finished run: python training/bundle.py RUN

Copies RUN/weights.safetensors into the package, writes the stored values of the self-test anew
when the default network changes, and prints what the entry in models.yaml has to say.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from csrecon import zoo
from csrecon.evaluation import selftest
from csrecon.io import files
from csrecon.zoo import cards

run = Path(sys.argv[1])
name = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["model"]
source = run / "weights.safetensors"
target = selftest.GOLDEN.with_name(f"{name}.safetensors")
if zoo.read_blueprint(source) != cards.card(name).blueprint():
    sys.exit(f"{source}: was not trained for {name} as models.yaml describes it.")
shutil.copyfile(source, target)
print(
    f"    weights:\n      file: {target.name}\n      sha256: {files.sha256_file(target)}\n"
    f"      bytes: {target.stat().st_size}"
)
if name == selftest.MODEL:
    np.savez_compressed(selftest.GOLDEN, **selftest.compute(torch.device("cpu"), target))
