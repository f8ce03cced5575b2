"""`csrecon models`: the model zoo, and the conversion of the authors' checkpoints."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csrecon.cli import parse
from csrecon.cli.command import Application, Json, Overwrite, say, say_json, say_table
from csrecon.errors import CheckError, UsageError

if TYPE_CHECKING:
    from csrecon.reconstructors.blueprint import Blueprint

app = Application(
    name="models", help="The model zoo: list, info, download, verify, convert, prune, push."
)


def list_models(as_json: Json = False) -> None:
    """List the models.

    **Example**

        csrecon models list
    """
    from csrecon.reconstructors.solvers import SOLVERS
    from csrecon.zoo import cards

    if as_json:
        networks = {name: card.model_dump(mode="json") for name, card in cards.cards().items()}
        say_json({**networks, **{name: {"summary": "classical solver"} for name in SOLVERS}})
        return
    header = ["model", "network", "parameters", "layers × IPL", "IPL", "ratios", "weights"]
    lines = []
    for name, card in cards.cards().items():
        low, high = card.trained.ratios
        lines.append(
            [
                name,
                card.summary,
                f"{card.parameters:,}",
                f"{len(card.recursion.schedule)} × {max(card.recursion.schedule)}",
                f"1..{card.trained.max_ipl}" if card.trained.max_ipl > 1 else "1",
                f"{low:g}..{high:g}",
                _state(name),
            ]
        )
    lines += [[name, "classical solver", "0", "", "", "any", ""] for name in SOLVERS]
    say_table(header, lines, left=2)


def info(
    name: Annotated[
        str, typer.Argument(help="A name of `csrecon models list`, or a .safetensors file.")
    ],
    as_json: Json = False,
) -> None:
    """Show the card of a model, or what a weights file holds.

    **Examples**

        csrecon models info rcoast
        csrecon models info mine.safetensors
    """
    from csrecon.zoo import cards, store

    if name.endswith(".safetensors"):
        _file_info(Path(name), as_json)
        return
    card = cards.card(name)
    if as_json:
        say_json(card.model_dump(mode="json"))
        return
    facts = {
        "model": f"{name}: {card.summary}",
        "parameters": f"{card.parameters:,}",
        **_architecture(card.blueprint()),
        "weights": _state(name),
        "licence": card.licence,
        "source": card.source,
        "provenance": card.provenance,
    }
    for key, value in facts.items():
        say(f"{key:<13}{value}")
    for label, weights in store.all_weights(name):
        parts = weights.model_dump(mode="json", exclude_none=True)
        say(f"{'':<13}{label}: " + ", ".join(f"{k} {v}" for k, v in parts.items()))
    for kind, results in (("published", card.published), ("measured", card.measured)):
        for result in results:
            say("")
            say(f"{kind}: {result.dataset}, IPL {result.ipl}, protocol {result.protocol}")
            say(f"  {result.source}")
            pairs = result.values.items()
            header = ["ratio", *(f"{ratio:g}" for ratio, _ in pairs)]
            lines = [
                ["PSNR", *(f"{psnr:.2f}" for _, (psnr, _) in pairs)],
                ["SSIM", *(f"{ssim:.4f}" for _, (_, ssim) in pairs)],
            ]
            say_table(header, lines)


def _architecture(blueprint: "Blueprint") -> dict[str, str]:
    """What a blueprint describes, by the names of the lines."""
    counts, (low, high) = blueprint.recursion.schedule, blueprint.trained.ratios
    modulation = blueprint.modulation
    return {
        "block": f"{blueprint.block.name} {blueprint.block.options}",
        "modulation": f"{modulation.name} {modulation.options or ''}".rstrip(),
        "start": blueprint.start.name,
        "schedule": f"{len(counts)} layers, iterations {counts}",
        "trained": f"IPL 1..{blueprint.trained.ipl}, ratios {low:g}..{high:g}",
        "allowed": f"IPL 1..{blueprint.trained.max_ipl}",
    }


def _file_info(path: Path, as_json: bool) -> None:
    """Show the blueprint of a weights file, and what its weights were made from."""
    from csrecon.zoo import weights_file

    blueprint = weights_file.read_blueprint(path)
    made_from = weights_file.read_made_from(path)
    if as_json:
        say_json({**blueprint.model_dump(mode="json"), "made_from": made_from})
        return
    facts = {**_architecture(blueprint), "made from": made_from or "not recorded"}
    for key, value in facts.items():
        say(f"{key:<13}{value}")


def _state(name: str) -> str:
    """The state of a model's weights: bundled, downloaded, on demand or none yet."""
    from csrecon.zoo import cards, store

    if cards.card(name).weights is None:
        return "none yet"
    kinds = {type(weights).__name__ for _, weights in store.all_weights(name)}
    if kinds == {"Bundled"}:
        return "bundled"
    missing = [w for _, w in store.all_weights(name) if store.problem(name, w)]
    return "on demand" if missing else "downloaded"


def download(
    names: Annotated[list[str], typer.Argument(help="Models to fetch.", metavar="NAME")],
    as_json: Json = False,
) -> None:
    """Download, verify and convert the weights of models, for offline use.

    **Example**

        csrecon models download rcoast-paper
    """
    from csrecon.zoo import cards, store

    for name in names:
        cards.card(name)
    results = {}
    for name in names:
        card = cards.card(name)
        if not as_json:
            say(f"{name}: {card.source} Licence: {card.licence}")
        results[name] = [str(path) for path in store.download(name)]
        if not as_json:
            for line in results[name] or ["no weights are released yet"]:
                say(f"  {line}")
    if as_json:
        say_json(results)


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to check.  [all]", metavar="NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the weights on this machine against their digests. Exit code 7 if any is wrong.

    **Example**

        csrecon models verify
    """
    from csrecon.zoo import cards, store

    rows = [
        {"model": label, "state": store.problem(name, weights) or "right"}
        for name in names or cards.cards()
        for label, weights in store.all_weights(name)
    ]
    if as_json:
        say_json(rows)
    else:
        say_table(["model", "weights"], [[row["model"], row["state"]] for row in rows], left=2)
    wrong = [r["model"] for r in rows if r["state"] not in ("right", "not downloaded")]
    if wrong:
        raise CheckError(f"{', '.join(wrong)}: not as published; `csrecon models download` again.")


def prune(as_json: Json = False) -> None:
    """Remove downloaded weights that no model uses any more, and quarantined files.

    **Example**

        csrecon models prune
    """
    from csrecon.zoo import store

    count, size = store.prune()
    if as_json:
        say_json({"files": count, "bytes": size})
    else:
        say(f"{store.folder()}: {count} files, {size / 2**20:.1f} MiB removed.")


def push(
    name: Annotated[
        str,
        typer.Argument(help="A model of the zoo, a .safetensors file, or `all` bundled models."),
    ],
    repository: Annotated[
        str,
        typer.Argument(help="owner/name on the hub; with `all`, the owner: owner/csrecon-NAME."),
    ],
    private: Annotated[bool, typer.Option("--private", help="Visible to you only.")] = False,
    dry_run: Annotated[
        Path | None, typer.Option(help="Only write the files to this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish a model on the Hugging Face hub: weights, config.json and a model card.

    Everybody can then use it with --model hf:owner/name. The token is that of `hf auth login`.
    A command that was interrupted can be repeated: what is there already does not change.

    **Example**

        csrecon models push runs/rcoast/weights.safetensors me/rcoast-mine --private
        csrecon models push all me --dry-run pages/
    """
    from csrecon.zoo import hub, model_page, store

    if name == "all" and "/" in repository:
        raise UsageError(
            f"{repository!r}: with `all`, give the owner only, as {repository.partition('/')[0]}."
        )
    models = store.bundled() if name == "all" else [name]
    addresses = {}
    with tempfile.TemporaryDirectory() as scratch:
        for each in models:
            folder, place = dry_run or Path(scratch), repository
            if name == "all":
                folder, place = folder / each, f"{repository}/csrecon-{each}"
            model_page.write(each, folder, place)
            address = str(folder) if dry_run else hub.push(folder, place, private)
            addresses[each] = address
            if not as_json:
                say(f"{each} -> {address}")
    if as_json:
        say_json(addresses if name == "all" else {"address": addresses[name]})


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="One of the authors' .pkl files.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    ipl: Annotated[
        int,
        typer.Option(
            help="Iterations per layer in training, which the file does not contain.", min=1
        ),
    ],
    ratio: Annotated[str, typer.Option(help="Smallest and largest trained ratio.")] = "0.1,0.5",
    phi: Annotated[
        Path | None, typer.Option(help="ISTA-Net+: the Φ of its training, .npy, .npz or .mat.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="ISTA-Net+: its start matrix Q (n, m), .npy or .mat.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a published COAST, R-COAST or ISTA-Net+ checkpoint to .safetensors.

    The checkpoint is read by a restricted unpickler that runs no code. The result works with
    --model.

    **Example**

        csrecon models convert R-COAST.pkl rcoast-paper.safetensors --ipl 4
        csrecon models convert ISTA.pkl ista.safetensors --ipl 1 --phi phi.npy --start q.npy
    """
    from csrecon.io import arrays, files
    from csrecon.sensing import native
    from csrecon.zoo import published, weights_file

    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: expected an output with suffix .safetensors.")
    files.refuse_existing(output, overwrite=overwrite)
    files.refuse_inputs([output], [path for path in (checkpoint, phi, start) if path])
    ratios = parse.ratios(ratio)
    if len(ratios) != 2:
        raise UsageError(f"--ratio {ratio!r}: expected the smallest and the largest, as 0.1,0.5.")
    network, blueprint = published.convert(
        checkpoint,
        ipl,
        (ratios[0], ratios[1]),
        native.read_phi(phi) if phi else None,
        arrays.pick(start) if start else None,
    )
    weights_file.save(network, blueprint, output, overwrite)
    count = sum(parameter.numel() for parameter in network.parameters())
    if as_json:
        facts = {"output": str(output), "parameters": count}
        say_json({**facts, **blueprint.model_dump(mode="json")})
        return
    say(f"{checkpoint} -> {output}: {blueprint.block.name}, {count:,} parameters")


app.add(list_models, "list")
for command in (info, download, verify, convert, prune, push):
    app.add(command)
