"""`csrecon data`: image sets, their sources and their folders on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from csrecon.cli.command import Application, DataDir, Json, say, say_json, say_table
from csrecon.errors import CheckError

app = Application(name="data", help="Image sets: list, download, verify.")


def list_sets(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the image sets.

    **Example**

        csrecon data list
    """
    from csrecon.zoo import datasets

    rows = [
        {
            "set": name,
            "images": card.count,
            "what": card.title,
            "use": card.use,
            "here": datasets.at_hand(name, data_dir),
            "digests": bool(datasets.remotes(name)),
            "source": card.source,
        }
        for name, card in datasets.DATASETS.items()
    ]
    if as_json:
        say_json(rows)
        return
    state = {(True, True): "here", (True, False): "here", (False, True): "on demand"}
    lines = [
        [
            str(row["set"]),
            str(row["what"]),
            str(row["use"]),
            state.get((bool(row["here"]), bool(row["digests"])), "by hand"),
        ]
        for row in rows
    ]
    say_table(["set", "images", "use", "state"], lines, left=4)


def download(
    names: Annotated[list[str], typer.Argument(help="Sets to fetch.", metavar="SET")],
    as_json: Json = False,
) -> None:
    """Download sets into the cache, every file checked against its digest.

    **Example**

        csrecon data download set11 bsd68
    """
    from csrecon.zoo import datasets

    for name in names:
        datasets.card(name)
    results = {}
    for name in names:
        results[name] = str(datasets.download(name))
        if not as_json:
            say(f"{name}: {results[name]}")
    if as_json:
        say_json(results)


def verify(
    name: Annotated[str, typer.Argument(help="The set to compare with.", metavar="SET")],
    folder: Annotated[
        Path | None, typer.Argument(help="Its folder.  [the one that csrecon finds]")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Check a set on this machine against the digests of its files. Exit code 7 if they differ.

    **Example**

        csrecon data verify bsd68 sets/bsd68
    """
    from csrecon.zoo import datasets

    card = datasets.card(name)
    place = folder or datasets.images(name, data_dir)[0].parent
    faults = datasets.verify(name, place)
    if as_json:
        say_json({"set": name, "folder": str(place), "faults": faults})
    else:
        for fault in faults:
            say(fault)
    if faults:
        raise CheckError(f"{place}: {len(faults)} files are not as in {name}.")
    if not as_json:
        say(f"{place}: all {card.count} images are those of {name}.")


app.add(list_sets, "list")
app.add(download)
app.add(verify)
