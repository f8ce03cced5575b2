"""Linear operators A of the model y = A x, one file each, and the kinds of Φ for block sampling."""

from csrecon.errors import UsageError, nearest
from csrecon.sensing.operators.base import (
    Blocks,
    Domain,
    FourierOptions,
    LinearOperator,
    OperatorSpec,
    SamplingOptions,
)
from csrecon.sensing.operators.block import BlockOperator, BlockSpec
from csrecon.sensing.operators.fourier import FourierOperator, FourierSpec
from csrecon.sensing.operators.identity import IdentityOperator, IdentitySpec
from csrecon.sensing.operators.kinds import KINDS, make
from csrecon.sensing.operators.matrices import Phi, count_measurements
from csrecon.sensing.operators.sampling import Sampling
from csrecon.sensing.operators.sense import SenseOperator, SenseSpec

OPERATORS: dict[str, type[OperatorSpec]] = {
    "block": BlockSpec,
    "fourier": FourierSpec,
    "identity": IdentitySpec,
    "sense": SenseSpec,
}
"""Kind of operator -> its spec, which makes and serializes it."""


def make_operator(domain: Domain, options: SamplingOptions) -> LinearOperator:
    """The operator for some options; a kind of Φ stands for block sampling.

    Fourier sampling with coils is the operator `sense`.

    Raises:
        UsageError: an unknown kind of operator or Φ, or options that do not fit it.
        InputError: a domain that the operator cannot measure.
    """
    if options.kind in KINDS:
        return BlockSpec.make(domain, options)
    extra = options.fourier
    coils = extra is not None and (extra.coils is not None or extra.sensitivities is not None)
    if options.kind == "fourier" and coils:
        return SenseSpec.make(domain, options)
    others = {name: spec for name, spec in OPERATORS.items() if spec is not BlockSpec}
    if options.kind not in others:
        raise UsageError(f"kind {options.kind!r}: {nearest(options.kind, [*KINDS, *others])}")
    return others[options.kind].make(domain, options)


__all__ = [
    "KINDS",
    "OPERATORS",
    "BlockOperator",
    "Blocks",
    "Domain",
    "FourierOperator",
    "FourierOptions",
    "IdentityOperator",
    "LinearOperator",
    "OperatorSpec",
    "Phi",
    "Sampling",
    "SamplingOptions",
    "SenseOperator",
    "count_measurements",
    "make",
    "make_operator",
]
