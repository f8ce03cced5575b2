"""Command lines of csrecon, drawn: ordinary ones, and ones with extreme and nonsensical values.

The options of every command are asked from the command line itself, so a new option is tried from
the day it exists. TEMPLATES are ordinary command lines to start from; `{kind}` stands for an item
of the corpus. What is before the first bar is kept, so that a command stays a short one.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from cases import Words
from corpus import TINY_TRAINING, Item

from csrecon.cli.app import app

_TINY = " ".join(TINY_TRAINING)
TEMPLATES = (
    "sample | {image} | --ratio 0.3 | --block 8",
    "sample | {image} | --ratio 0.5 | --kind hadamard | --block 8 | --color rgb | -o new.npz",
    "sample | {image} | --ratio 0.25 | --kind fourier | --mask random1d | --json",
    "sample | {image} | --kind fourier | --mask {mask} | -o f.npz",
    "sample | {image} | --kind identity | --noise-sigma 0.1 | -o new/y.npy",
    "sample | {image} | --phi {phi} | --photons 100 | --pack npz",
    "sample | {image} | --m 5 | --block 8 | --seed 3 | --kind bernoulli | --overwrite",
    "sample | photos | --ratio 0.3 | --block 8 | -o many/ | --color ycbcr",
    "sample | {image} | {image} | --ratio 0.3 | --block 8 | -o many | --json",
    "reconstruct | {measurement} | --model tv:iterations=2 | -o out.png",
    "reconstruct | {measurement} | --model fista:iterations=2 | -o out.npy | --json",
    "reconstruct | {measurement} | --model rista | --ipl 1 | -o out.tif | --ref {image}",
    "reconstruct | {measurement} | --model {weights} | --tile 32 | --precision fp32 | -o o.png",
    "reconstruct | taken | --model tv:iterations=2 | -o images/ | --rotate 90",
    "reconstruct | {measurement} | {measurement} | --model tv:iterations=2 | -o images | --json",
    "reconstruct | {values} | --phi {phi} | --shape 24x24 | --model tv:iterations=2 | -o o.png",
    "reconstruct | lab.npz | --var y | --phi lab.npz:phi | --shape 24x24 | --model tv:iterations=2",
    "reconstruct | lab.npy | --phi phi.npy | --positions {positions} | --model fista:iterations=1",
    "reconstruct | {measurement} | --model lasso:iterations=2 | --init {image} | -o w.png | -v",
    "reconstruct | {measurement} | --model omp:sparsity=2 | --keep-going | -o s.png | --json",
    "reconstruct | {measurement} | --model tval3:iterations=2 | --init-model ista:iterations=1",
    "import | {values} | --phi {phi} | --shape 24x24 | -o new.npz | --gain auto",
    "import | {values} | --phi phi.npy | --shape 24x24 | --pixel-order F | --offset 0.5 | -o n.npy",
    "import | lab.npy | --phi phi.npy | --shape 24x24 | --calibrate {scene} {scene} | -o n.npz",
    "import | pairs.npy | --phi phi.npy | --shape 24x24 | --differential | -o n.npz | --json",
    "calibrate | known | --phi phi.npy | -o fitted.npy | --json",
    "calibrate | known | --images photos | --phi {phi} | --force | --overwrite",
    "inspect | {array} | --phi {phi} | --json",
    "inspect | {measurement}",
    "inspect | {array}",
    "compare --model tv:iterations=2 | {image} | --ratio 0.5 | -o c.png",
    "compare --model tv:iterations=1 | {image} | --model rista@1 | --zoom 2,2,8 | -o c.svg",
    "compare --model rista@1 | {image} | --film | --overwrite",
    "bench --model tv:iterations=2 --ratio 0.3 | --dataset photos | -o b.csv | -o b.json",
    "bench --model tv:iterations=2 --ratio 0.3 | --dataset photos | --resume | {cache} | --json",
    "bench --model fista:iterations=1 --ratio 0.5 | --dataset photos | --seeds 2 | --kind dct",
    "bench --model rista --ipl 1 --ratio 0.5 | --dataset photos | --batch 2 | -o folder/",
    "plot | {report} | -o figures",
    "plot | {report} | --overwrite | --json",
    f"train rista --data photos {_TINY} --max-time 3s | --out new | --json",
    f"train rista --data photos {_TINY} --max-time 3s | --out run | --resume | {{run}}",
    f"train rista --data photos {_TINY} --max-time 3s | --init {{weights}} | --fit | --out new",
    "models list | --json",
    "models info | rista",
    "models verify | rista | --json",
    "models convert --ipl 2 | {checkpoint} | out.safetensors | --ratio 0.1,0.5",
    "models push --dry-run page | {weights} | me/mine",
    "data list | --data-dir photos | --json",
    "data verify | set11 | photos | --json",
    "doctor | --device cpu | --json",
    "quickstart -o q.bad | --json",
    "--version",
)
NONSENSE = (
    *("", "0", "-1", "1", "nan", "inf", "-inf", "1e39", "1e-300", "-0.0", "9" * 400, "0x10", "1_0"),
    *(
        "@",
        "@1",
        ":",
        "a" * 5000,
        "é\u202e",
        "\x1b[31mred",
        ":100:",
        "[red]x[/red]",
        "[/]",
        "\udcff",
    ),
    *(
        "missing.png",
        "a/b/c.npy",
        ".",
        "..",
        "../..",
        "photos",
        "fifo",
        "loop",
        "dangling",
        "folder",
    ),
    *(
        "link.png",
        "1,2",
        "1..3",
        "3..1",
        ",",
        "0,0,0",
        "24x24",
        "0x0",
        "1e400",
        "true",
        "null",
        "[]",
    ),
    *("{}", "{a: &a [*a]}", "a=b", "seed=-1", "ratios=[]", "lab.npz:", "lab.npz:y", "*.png", "[!"),
    *(
        "hf:owner/name",
        "hf:",
        "../../x",
        "rista@0",
        "tv:iterations=0",
        "tv:weight=nan",
        "tv:",
        "\n",
    ),
)
VALUES: Mapping[str, Sequence[str]] = {
    "--ratio": ("0.3", "0.5", "1", "1e-9", "0.999999"),
    "--m": ("1", "64", "65", "99999999999"),
    "--block": ("8", "1", "4", "33", "7", "64", "100000", "2147483648", "8,4"),
    "--kind": ("gaussian", "hadamard", "hadamard-cake", "dct", "pixels", "fourier", "identity"),
    "--mask": ("random2d", "random1d", "mask.npy", "lab.npz:y"),
    "--seed": ("0", "7", "18446744073709551616", "4294967296"),
    "--seeds": ("1", "2"),
    "--noise-sigma": ("0", "0.1", "1e-30", "1e30", "0,0.1"),
    "--photons": ("100", "1e-9", "1e18", "1e30"),
    "--color": ("gray", "ycbcr", "rgb"),
    "--pack": ("npy", "npz"),
    "--output": (
        "o.png",
        "o.npy",
        "o.npz",
        "o.tif",
        "o.jpg",
        "new/",
        "new/o.png",
        "lab.npy",
        "i.png",
    ),
    "--model": (
        *("tv:iterations=1", "fista:iterations=1", "rista", "plain.safetensors"),
        *("omp:sparsity=1", "tv:weight=auto,iterations=1", "ista:iterations=2,transform=wavelet"),
        *("lasso:iterations=1", "omp:dictionary=phi.npy", "omp:dictionary=lab.npz", "tv,rista"),
    ),
    "--ipl": ("1", "2", "1,1,1", "99", "1,1"),
    "--ipls": ("1..2", "1"),
    "--ref": ("i.png", "photos", "color.png"),
    "--rotate": ("0", "90", "180", "270", "45"),
    "--device": ("cpu", "auto", "cuda", "cuda:7", "mps"),
    "--precision": ("auto", "fp32", "bf16", "fp16"),
    "--tile": ("auto", "off", "8", "33", "64", "1"),
    "--phi": ("phi.npy", "phi.csv", "lab.npz:phi", "lab.npy", "mask.npy"),
    "--shape": ("24x24", "23x24", "1x1", "9999999x9999999", "8x72"),
    "--var": ("y", "phi", "group/y", "nothing"),
    "--layout": ("auto", "blocks-first", "measurements-first"),
    "--pixel-order": ("C", "F"),
    "--block-order": ("C", "F"),
    "--positions": ("positions.csv", "lab.csv"),
    "--gain": ("1", "auto", "2", "0", "1e39", "1e-39"),
    "--offset": ("0", "0.5", "1e39", "1e6"),
    "--noise": ("0", "0.1", "1e39"),
    "--zoom": ("0,0,8", "2,2,1", "99,99,99"),
    "--dataset": ("photos", "set11", "folder"),
    "--preset": ("table1", "nothing"),
    "--protocol": ("paper", "standard"),
    "--metrics": ("psnr", "psnr,ssim"),
    "--limit": ("1", "999"),
    "--batch": ("1", "2"),
    "--jobs": ("1",),
    "--data-dir": ("photos", "folder"),
    "--data": ("photos", "folder", "set11"),
    "--data-fraction": ("0.03", "1e-9", "1"),
    "--recipe": ("refine", "paper", "3pct"),
    "--max-time": ("1s", "0.001s", "999999h"),
    "--out": ("new", "run", "photos"),
    "--init": ("rista", "tv", "rcoast", "i.png", "color.png", "lab.npy"),
    "--init-model": ("tv:iterations=1", "omp:sparsity=1", "rista", "tv:"),
    "--set": ("batch=2", "seed=5", "equal=1", "clip=0", "ema=0", "patch=8", "ratios=[0.5]"),
    "--dry-run": ("page", "photos"),
    "--phi-of": ("rista", "rcoast-paper"),
    "--start": ("phi.npy",),
}
_HEAVY = {"--jobs", "--debug", "--install-completion", "--show-completion", "--help"}


class Grammar:
    """Draws command lines over a corpus."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._options = dict(_commands(typer.main.get_command(app)))

    def ordinary(self, draw: random.Random) -> Words:
        """A template with inputs of the corpus."""
        template = draw.choice(TEMPLATES)
        groups = [part.split() for part in template.split("|")]
        return tuple(
            tuple(self._item(word[1:-1], draw) if word.startswith("{") else word for word in group)
            for group in groups
        )

    def odd(self, draw: random.Random) -> Words:
        """An ordinary command line with one to five changes."""
        words = [list(group) for group in self.ordinary(draw)]
        command = " ".join(words[0][: 2 if words[0][0] in ("models", "data") else 1])
        options = self._options.get(command, {})
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 5))):
            match draw.randrange(5):
                case 0 | 1 if options:
                    words.append(self._option(options, draw))
                case 2 if len(words) > 1:
                    group = draw.choice(words[1:])
                    group[-1] = self._value(group[0], draw)
                case 3 if len(words) > 1 and draw.random() < 0.5:
                    words.remove(draw.choice(words[1:]))
                case _ if len(words) > 1:
                    words.append(list(draw.choice(words[1:])))
        return tuple(tuple(group) for group in words)

    def _option(self, options: Mapping[str, int], draw: random.Random) -> list[str]:
        name = draw.choice([*options])
        return [name, *(self._value(name, draw) for _ in range(options[name]))]

    def _value(self, name: str, draw: random.Random) -> str:
        usual = VALUES.get({"-o": "--output"}.get(name, name), ())
        if usual and draw.random() < 0.5:
            return draw.choice(usual)
        if draw.random() < 0.3:
            return draw.choice(self._items).name
        return draw.choice(NONSENSE)

    def _item(self, kind: str, draw: random.Random) -> str:
        return draw.choice([item.name for item in self._items if kind in item.kinds])


def options(command: str) -> dict[str, int]:
    """The options of a command with their numbers of values."""
    return dict(_commands(typer.main.get_command(app)))[command]


def _commands(command: Any, name: str = "") -> list[tuple[str, dict[str, int]]]:
    """Every command with its options and their numbers of values."""
    if hasattr(command, "commands"):
        return [
            found
            for key, inner in command.commands.items()
            for found in _commands(inner, f"{name} {key}".strip())
        ]
    options = {
        option.opts[-1]: 0 if option.is_flag else option.nargs
        for option in command.params
        if option.param_type_name == "option" and option.opts[-1] not in _HEAVY
    }
    return [(name, options)]
