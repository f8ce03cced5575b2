"""`csrecon models`: what the zoo holds, and how to bring the authors' checkpoints into it."""

from pathlib import Path
from typing import Annotated

import typer

from csrecon.cli import parse
from csrecon.cli.command import Application, Json, Overwrite, say, say_json, say_table
from csrecon.errors import UsageError

app = Application(name="models", help="The model zoo: list, info, convert.")


def list_models(as_json: Json = False) -> None:
    """List the models.

    **Example**

        csrecon models list
    """
    from csrecon import zoo
    from csrecon.solvers import SOLVERS

    if as_json:
        networks = {name: card.model_dump(mode="json") for name, card in zoo.cards().items()}
        say_json({**networks, **{name: {"summary": "classical solver"} for name in SOLVERS}})
        return
    header = ["model", "network", "parameters", "layers × IPL", "IPL", "ratios", "weights"]
    lines = []
    for name, card in zoo.cards().items():
        low, high = card.trained.ratios
        lines.append(
            [
                name,
                card.summary,
                f"{card.parameters:,}",
                f"{len(card.schedule)} × {max(card.schedule)}",
                f"1..{card.allowed.ipl}" if card.allowed.ipl > 1 else "1",
                f"{low:g}..{high:g}",
                "bundled" if card.weights else "none yet",
            ]
        )
    lines += [[name, "classical solver", "0", "", "", "any", ""] for name in SOLVERS]
    say_table(header, lines, left=2)


def info(
    name: Annotated[str, typer.Argument(help="A name of `csrecon models list`.")],
    as_json: Json = False,
) -> None:
    """Show the card of a model.

    **Example**

        csrecon models info rcoast
    """
    from csrecon import zoo

    card = zoo.card(name)
    if as_json:
        say_json(card.model_dump(mode="json"))
        return
    low, high = card.trained.ratios
    facts = {
        "model": f"{name}: {card.summary}",
        "architecture": f"{card.architecture} {card.arguments}",
        "parameters": f"{card.parameters:,}",
        "schedule": f"{len(card.schedule)} layers, iterations {card.schedule}",
        "trained": f"IPL 1..{card.trained.ipl}, ratios {low:g}..{high:g}",
        "allowed": f"IPL 1..{card.allowed.ipl}",
        "weights": f"{card.weights.file}, SHA-256 {card.weights.sha256}"
        if card.weights
        else "none yet",
        "licence": card.licence,
        "source": card.source,
        "provenance": card.provenance,
    }
    for key, value in facts.items():
        say(f"{key:<13}{value}")
    for kind, results in (("published", card.published), ("measured", card.measured)):
        for result in results:
            say(f"\n{kind}: {result.dataset}, IPL {result.ipl}, protocol {result.protocol}")
            say(f"  {result.source}")
            pairs = result.values.items()
            header = ["ratio", *(f"{ratio:g}" for ratio, _ in pairs)]
            lines = [
                ["PSNR", *(f"{psnr:.2f}" for _, (psnr, _) in pairs)],
                ["SSIM", *(f"{ssim:.4f}" for _, (_, ssim) in pairs)],
            ]
            say_table(header, lines)


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="One of the authors' .pkl files.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    ipl: Annotated[
        int,
        typer.Option(help="Iterations per layer of the training; the file does not say.", min=1),
    ],
    ratio: Annotated[str, typer.Option(help="Smallest and largest trained ratio.")] = "0.1,0.5",
    phi: Annotated[
        Path | None, typer.Option(help="ISTA-Net+: the Φ of its training, .npy or .npz.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="ISTA-Net+: its start matrix Q (n, m), .npy.")
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
    from csrecon import files, measurement_file, published, zoo

    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: the output ends in .safetensors.")
    ratios = parse.ratios(ratio)
    if len(ratios) != 2:
        raise UsageError(f"--ratio {ratio!r}: expected the smallest and the largest, as 0.1,0.5.")
    network, blueprint = published.convert(
        checkpoint,
        ipl,
        (ratios[0], ratios[1]),
        measurement_file.read_phi(phi) if phi else None,
        files.read_npy(start) if start else None,
    )
    zoo.save(network, blueprint, output, overwrite)
    count = sum(parameter.numel() for parameter in network.parameters())
    if as_json:
        facts = {"output": str(output), "parameters": count}
        say_json({**facts, **blueprint.model_dump(mode="json")})
        return
    say(f"{checkpoint} -> {output}: {blueprint.architecture}, {count:,} parameters")


app.add(list_models, "list")
app.add(info)
app.add(convert)
