"""Every reader of csrecon, called in the child itself: `call readers.py read FILE …` of forked.py.

A reader may read or refuse. The name of a file is printed before it is read, so that the last one
is the culprit.
"""

import sys
import traceback
import warnings
from pathlib import Path

from csrecon import zoo
from csrecon.errors import CsreconError
from csrecon.evaluation import figures
from csrecon.evaluation.cache import ResultCache
from csrecon.io import arrays, foreign, images
from csrecon.sensing import native
from csrecon.training import checkpoint
from csrecon.training.recipe import Recipe
from csrecon.zoo import cards, published

CRASHES = {".mat", ".h5"}
"""Suffixes whose libraries may crash, which is why csrecon reads them in a process of its own."""


def read(*names: str) -> int:
    """Read these files; 1 if a reader neither reads nor refuses."""
    warnings.simplefilter("ignore")
    for name in names:
        print(name, flush=True)
        try:
            _read(Path(name))
        except CsreconError:
            continue
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return 1
    return 0


def _read(path: Path) -> None:
    suffix = path.suffix.lower()
    match suffix:
        case ".mat" | ".h5":
            foreign.read(path)
        case ".npy" | ".npz":
            if native.describes_itself(path):
                native.load(path)
            arrays.read(path)
        case ".csv" | ".txt":
            arrays.read(path)
        case ".safetensors":
            zoo.load(str(path))
        case ".yaml":
            cards.read_cards(path)
        case ".jsonl":
            ResultCache(path)
        case ".json":
            figures.read_cells(path)
        case ".pkl":
            published.convert(path, 1, (0.1, 0.5), None, None)
        case ".pt":
            recipe = Recipe.model_validate_json(path.with_name("recipe.json").read_text())
            checkpoint.load(path.parent, recipe)
        case _:
            images.read(path)
