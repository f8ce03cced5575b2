"""Seconds of an exported graph beside those of csrecon, on the CPU, in one process.

    python benchmarks/export.py --model frcoast --ipl 4 --shape 128x128 --ratio 0.1

Both use fp32, whole images and the same number of threads. Every repetition runs all in turn, and
the smallest of their seconds counts: other work on the machine only adds to it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import csrecon
from csrecon.cli import parse
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, count_measurements, make
from csrecon.zoo import export


def seconds(runs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """The smallest seconds of each, after one run that is not counted."""
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()
    for _ in range(repetitions):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def main() -> None:
    """Export, run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="frcoast")
    parser.add_argument("--ipl", type=int, default=4)
    parser.add_argument("--shape", default="128x128", help="HxW")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    shape = parse.shape(said.shape)
    assert shape is not None
    m = count_measurements(1089, said.ratio)
    operator = BlockOperator(make("gaussian", m, (33, 33), 0), shape)
    network = csrecon.load(said.model)
    assert isinstance(network, Unfolding)
    network = network.at(said.ipl)
    y = operator(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)))
    measured, setup = Measurement(operator, y), execution.Setup(torch.device("cpu"))
    runs: dict[str, Callable[[], object]] = {
        "csrecon": lambda: execution.image(network, measured, setup)
    }
    sizes, errors = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for half in (False, True):
            name = "onnxruntime, fp16" if half else "onnxruntime"
            path = Path(folder) / f"{half}.onnx"
            options = export.ExportOptions(half=half)
            errors[name] = export.export(said.model, network, operator, path, options).error
            sizes[name] = path.stat().st_size / 2**20
            threads = onnxruntime.SessionOptions()
            threads.intra_op_num_threads = said.threads
            session = onnxruntime.InferenceSession(
                path, threads, providers=["CPUExecutionProvider"]
            )
            given = {"y": np.asarray(y)}
            runs[name] = lambda session=session, given=given: session.run(None, given)  # type: ignore[misc]
        best = seconds(runs, said.repetitions)
    print(
        f"{said.model}, IPL {said.ipl}, {said.shape}, {said.ratio:g}, {said.threads} thread(s), "
        f"csrecon {csrecon.__version__}, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}"
    )
    print("| | seconds | ratio | MiB | largest difference |\n|---|---:|---:|---:|---:|")
    for name, taken in best.items():
        rest = f"{sizes[name]:.2f} | {errors[name]:.1g}" if name in sizes else " | "
        print(f"| {name} | {taken:.3f} | {taken / best['csrecon']:.2f} | {rest} |")


if __name__ == "__main__":
    main()
