"""Proximal blocks, one file each; an unfolding network is a stack of them."""

from csrecon.reconstructors.nets.coast import CoastBlock
from csrecon.reconstructors.nets.disco import DiscoBlock
from csrecon.reconstructors.nets.dncnn import DncnnBlock
from csrecon.reconstructors.nets.fno import FnoBlock
from csrecon.reconstructors.nets.frcoast import FrcoastBlock
from csrecon.reconstructors.nets.ista_net_plus import IstaNetPlusBlock
from csrecon.reconstructors.unfolding import ProxBlock

BLOCKS: dict[str, type[ProxBlock]] = {
    "coast": CoastBlock,
    "disco": DiscoBlock,
    "dncnn": DncnnBlock,
    "fno": FnoBlock,
    "frcoast": FrcoastBlock,
    "ista-net-plus": IstaNetPlusBlock,
}
"""Name of an architecture -> its block, which takes `features` and its own options."""
