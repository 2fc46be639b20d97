"""Axis, Layout, Site, Group, Block, Stack, Graph, Selector: the traced structure, without torch."""

from surgeon.graph.axis import KINDS, Axis, AxisKind
from surgeon.graph.block_selector import BlockSelector
from surgeon.graph.document import graph_document
from surgeon.graph.graph import Graph, Parameter
from surgeon.graph.group import Group, Port, Role, Site
from surgeon.graph.layout import Layout, Mode
from surgeon.graph.selector import Selector
from surgeon.graph.stack import Block, Stack, Sublayer, SublayerRole

__all__ = [
    "KINDS",
    "Axis",
    "AxisKind",
    "Block",
    "BlockSelector",
    "Graph",
    "Group",
    "Layout",
    "Mode",
    "Parameter",
    "Port",
    "Role",
    "Selector",
    "Site",
    "Stack",
    "Sublayer",
    "SublayerRole",
    "graph_document",
]
