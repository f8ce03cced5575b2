"""Networks in formats that run without csrecon: ONNX, or a package of torch.export.

A written file is compared with csrecon's own result before it gets its name; one that differs is
never left behind.
"""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from csrecon._version import __version__
from csrecon.errors import CheckError, UsageError
from csrecon.io import files
from csrecon.reconstructors.base import Reconstructor
from csrecon.reconstructors.graph import AnyPhi, FixedPhi, Graph, PhiInputs, phi_inputs
from csrecon.reconstructors.starts import MarkovStart
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, LinearOperator, Phi
from csrecon.zoo import loading
from csrecon.zoo.cards import cards

TOLERANCE = 1e-4
"""The largest difference of a pixel from csrecon's own result, for images in [0, 1]."""
HALF_TOLERANCE = 0.02
"""The same with convolutions in fp16."""
OPSET = 20
"""Of the ONNX files: the one that PyTorch's exporter is written for."""

_SETUP = execution.Setup(torch.device("cpu"))
_IN_HALF = {"Conv", "Relu"}
_Inputs = dict[str, Tensor]
_Runner = Callable[[_Inputs], NDArray[np.float32]]


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        format: onnx, or torch for a package of torch.export.
        any_phi: Φ becomes an input, beside what depends on it (`phi_inputs`).
        half: convolutions in fp16, the last tenth of the iterations excepted; ONNX only.
        noise: standard deviation of the noise on y that the network is conditioned on.
        overwrite: replace existing files.
    """

    format: str = "onnx"
    any_phi: bool = False
    half: bool = False
    noise: float = 0.0
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        outputs: the graph, and with any_phi a .npy for each further input.
        inputs: name -> shape; a name in place of a number is free.
        shape: of the images.
        error: the largest difference of a pixel from csrecon's own result.
        metadata: as in the file.
    """

    outputs: tuple[Path, ...]
    inputs: dict[str, tuple[int | str, ...]]
    shape: tuple[int | str, ...]
    error: float
    metadata: dict[str, str]


def outputs(path: Path, network: Reconstructor, any_phi: bool) -> tuple[Path, ...]:
    """The files that `export` writes to `path`: NAME.onnx, and NAME.phi.npy and so on beside it."""
    return (path, *_beside(path, network)) if any_phi else (path,)


def _beside(path: Path, network: Reconstructor) -> list[Path]:
    """Where the inputs that depend on Φ are written."""
    markov = isinstance(network, Unfolding) and isinstance(network.start, MarkovStart)
    names = ("phi", "transform", *(("start",) if markov else ()))
    return [path.with_name(f"{path.stem}.{name}.npy") for name in names]


def write_inputs(
    network: Reconstructor, operator: LinearOperator, path: Path, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write what a graph for any Φ needs of this Φ: NAME.phi.npy and others beside `path`.

    Raises:
        UsageError, InputError: as `export`.
        ResourceError: they cannot be written.
    """
    known, blocks = checked(network, operator)
    made = phi_inputs(known, _typical(blocks, 0.0))
    AnyPhi(known, blocks, made)  # refuses a Φ that no such graph takes
    targets = _beside(path, known)
    with files.new_files(*targets, overwrite=overwrite) as temporary:
        _write(made, temporary)
    return tuple(targets)


def _write(made: PhiInputs, targets: list[Path]) -> None:
    for target, tensor in zip(targets, made.tensors().values(), strict=True):
        files.write_npy(target, tensor.numpy().astype("<f4"))


def export(
    name: str,
    network: Reconstructor,
    operator: LinearOperator,
    path: Path,
    options: ExportOptions,
) -> Exported:
    """Write a network as a graph for one Φ and image size, and compare it with csrecon's result.

    Args:
        name: of the model, for the metadata.
        network: at the iterations per layer that the graph is to have.
        operator: block sampling: Φ, block and image size.
        path: of the file.
        options: format, precision and inputs.

    Returns:
        The files, the inputs, and the largest difference found.

    Raises:
        UsageError: what has no graph, an output that exists, or a missing package.
        InputError: a Φ that the network does not work with.
        CheckError: the file does not give csrecon's result; nothing is written.
        ResourceError: it cannot be written.
    """
    write = {"onnx": _write_onnx, "torch": _write_torch}.get(options.format)
    if write is None:
        raise UsageError(f"format {options.format!r}: expected onnx or torch.")
    if options.half and options.format != "onnx":
        raise UsageError("fp16 is for ONNX: leave out --half, or write NAME.onnx.")
    if options.format == "onnx":
        _onnx_packages()
    known, blocks = checked(network, operator)
    targets = outputs(path, known, options.any_phi)
    files.refuse_existing(*targets, overwrite=options.overwrite)
    typical = _typical(blocks, options.noise)
    made = phi_inputs(known, typical)
    graph = (AnyPhi if options.any_phi else FixedPhi)(known, blocks, made)
    given = {"y": typical.y} | (made.tensors() if options.any_phi else {})
    with torch.inference_mode():
        shape = graph(**given).shape  # raises what the network refuses, in its own words
    metadata = _metadata(name, known, blocks, options)
    with files.new_files(*targets, overwrite=options.overwrite) as temporary:
        run = write(graph, given, temporary[0], metadata, options)
        if options.any_phi:
            _write(made, temporary[1:])
        error = _difference(run, known, typical, options)
        tolerance = HALF_TOLERANCE if options.half else TOLERANCE
        if not error <= tolerance:
            raise CheckError(
                f"{path}: differs from csrecon's own result by {error:.2g}, more than {tolerance:g}"
                ": nothing was written. Please report it, with the model and the shape of Φ."
            )
    sides: dict[str, tuple[int | str, ...]] = {k: tuple(v.shape) for k, v in given.items()}
    sides["y"] = ("batch", *blocks.y_shape)
    return Exported(targets, sides, ("batch", *shape[1:]), error, metadata)


def checked(network: Reconstructor, operator: LinearOperator) -> tuple[Unfolding, BlockOperator]:
    """These, if they have a graph.

    Raises:
        UsageError: they have none.
    """
    if not isinstance(network, Unfolding):
        raise UsageError(
            f"{type(network).__name__}: a classical solver, which stops by a rule and has no "
            "weights; networks only can be exported, such as frcoast."
        )
    block = network.blocks[0]
    if not isinstance(operator, BlockOperator) or not isinstance(block, ProxBlock):
        raise UsageError(
            f"{type(operator).__name__}: only networks with block sampling (a matrix Φ) can be "
            "exported, not Fourier sampling or denoising."
        )
    if block.channels != 1:
        raise UsageError(
            "this network reconstructs complex images, and only those with block sampling can be "
            "exported."
        )
    return network, operator


def _typical(operator: BlockOperator, noise: float, seed: int = 0) -> Measurement:
    """Two smooth scenes with edges, measured; of equal numbers in every process."""
    draw = torch.Generator().manual_seed(seed)
    smooth, edges = torch.rand(2, 2, 1, 6, 6, generator=draw)
    size = operator.image_shape
    x = 0.7 * interpolate(smooth, size, mode="bilinear") + 0.3 * interpolate(edges, size)
    y = operator(x)
    return Measurement(operator, y + noise * torch.randn(y.shape, generator=draw), noise=noise)


def _metadata(
    name: str, network: Unfolding, operator: BlockOperator, options: ExportOptions
) -> dict[str, str]:
    """What the file says of itself."""
    entry = cards().get(name)
    height, width = operator.image_shape
    facts: dict[str, Any] = {
        "csrecon": __version__,
        "model": Path(name).name if entry is None else name,
        "weights_sha256": loading.identity(network)["weights"],
        "iterations_per_layer": network.schedule,
        "image": f"{height}x{width}",
        "block": f"{operator.block[0]}x{operator.block[1]}",
        "m": operator.m,
        "ratio": operator.ratio,
        "noise": options.noise,
        "convolutions": "fp16" if options.half else "fp32",
        "phi_sha256": "input" if options.any_phi else operator.phi.sha256,
        "licence": entry.licence if entry else "unknown",
        "source": entry.source if entry else "unknown",
        "summary": entry.summary if entry else "",
    }
    return {key: str(value) for key, value in facts.items()}


def _difference(
    run: _Runner, network: Unfolding, typical: Measurement, options: ExportOptions
) -> float:
    """The largest difference of a pixel: of a batch of two and of one, and with any Φ of another.

    NaN if the result is not finite.
    """
    operator = typical.operator
    assert isinstance(operator, BlockOperator)
    normalized = typical.normalized()
    cases = [(typical, typical), (typical, normalized)]
    if options.any_phi:
        turned = Phi(np.ascontiguousarray(operator.rows.matrix().numpy()[::-1, ::-1]))
        other = _typical(BlockOperator(turned, operator.image_shape, operator.block), 0.0, seed=1)
        cases.append((other, other))
    largest = 0.0
    for count, (given, same) in zip((2, 1, 2), cases, strict=False):
        extra = phi_inputs(network, given).tensors() if options.any_phi else {}
        found = torch.from_numpy(run({"y": given.y[:count]} | extra))
        expected = execution.image(network, replace(same, y=same.y[:count]), _SETUP)
        if found.shape != expected.shape:
            raise CheckError(
                f"the file gives images of shape {tuple(found.shape)} instead of "
                f"{tuple(expected.shape)}: nothing was written."
            )
        largest = float(np.maximum(largest, float((found - expected).abs().max())))
    return largest


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """PyTorch's exporters warn about their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _traced(graph: Graph, given: _Inputs) -> torch.export.ExportedProgram:
    free = {name: {0: torch.export.Dim("batch")} if name == "y" else None for name in given}
    with _quietly():
        return torch.export.export(graph, (), given, dynamic_shapes=free, strict=False)


def _write_torch(
    graph: Graph, given: _Inputs, path: Path, metadata: Mapping[str, str], options: ExportOptions
) -> _Runner:
    with _quietly():
        described = {"csrecon.json": json.dumps(dict(metadata), indent=2)}
        torch.export.save(_traced(graph, given), path, extra_files=described)
        program = torch.export.load(path).module()

    def run(inputs: _Inputs) -> NDArray[np.float32]:
        with torch.inference_mode():
            image: Tensor = program(**inputs)
        return image.numpy()

    return run


def _onnx_packages() -> None:
    try:
        import onnx  # noqa: F401, PLC0415 - an extra
        import onnxruntime  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            f"ONNX needs other packages ({error}): pip install 'csrecon[export]', or write a "
            "package of torch.export with --format torch."
        ) from error


def _write_onnx(
    graph: Graph, given: _Inputs, path: Path, metadata: Mapping[str, str], options: ExportOptions
) -> _Runner:
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    with _quietly():
        program = torch.onnx.export(
            _traced(graph, given),
            output_names=["image"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if options.half:
        proto = _halved(proto)
    onnx.helper.set_model_props(proto, dict(metadata))
    proto.producer_name, proto.producer_version = "csrecon", __version__
    onnx.save(proto, path)
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, threads, providers=["CPUExecutionProvider"])

    def run(inputs: _Inputs) -> NDArray[np.float32]:
        (image,) = session.run(["image"], {name: value.numpy() for name, value in inputs.items()})
        return np.asarray(image)

    return run


def _halved(proto: Any) -> Any:
    """The convolutions in fp16, but for those of the last tenth of the iterations."""
    from onnxruntime.transformers import float16  # noqa: PLC0415

    convolutions = [node.name for node in proto.graph.node if node.op_type in _IN_HALF]
    kept = convolutions[-max(1, len(convolutions) // 10) :]
    others = {node.op_type for node in proto.graph.node} - _IN_HALF
    with _quietly():
        return float16.convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=sorted(others), node_block_list=kept
        )
