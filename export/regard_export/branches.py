"""Branches made of a graph's own nodes: an `If` that does what they did, or something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape


class Branch:
    """One branch of an `If`; `name` begins the names of all that its nodes give."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._copies: dict[ir.Value, ir.Value] = {}
        self._nodes: list[ir.Node] = []
        self._named = 0

    def copy(self, nodes: Iterable[ir.Node], given: Mapping[ir.Value, ir.Value] | None = None) -> None:
        """Copy nodes in their order; they get what `given` says, or what earlier copies give, for what they got."""
        self._copies |= given or {}
        for node in nodes:
            inputs = [self._copies.get(one, one) if one is not None else None for one in node.inputs]
            outputs = [ir.Value(type=one.type, shape=one.shape) for one in node.outputs]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            self._append(ir.node(node.op_type, inputs, attributes, domain=node.domain, outputs=outputs))
            self._copies |= dict(zip(node.outputs, outputs, strict=True))

    def add(self, tape: Tape) -> None:
        """Add nodes that are no copies."""
        for node in tape.nodes:
            self._append(node)

    def of(self, value: ir.Value) -> ir.Value:
        """Return what a copied node gives in the place of a value."""
        return self._copies[value]

    def graph(self, outputs: Sequence[ir.Value]) -> ir.Graph:
        """Return the branch as a graph that gives `outputs`, each made by one of its nodes."""
        return ir.Graph([], outputs, nodes=self._nodes, name=self._name)

    def _append(self, node: ir.Node) -> None:
        for value in node.outputs:  # a graph and its branches share one space of names
            value.name, self._named = f"{self._name}.{self._named}", self._named + 1
        self._nodes.append(node)


def branch_off(
    graph: ir.Graph,
    nodes: Sequence[ir.Node],
    old: Sequence[ir.Value],
    condition: ir.Value,
    branches: tuple[ir.Graph, ir.Graph],
) -> None:
    """Replace nodes, in place, by an `If`, whose outputs stand for the `old` ones that they gave.

    The first of the branches is taken if the condition holds.
    """
    tape, (then, other) = Tape(), branches
    new = list(tape.op_multi_out("If", [condition], {"then_branch": then, "else_branch": other}, num_outputs=len(old)))
    names = [one.name for one in old]
    for value, one in zip(new, old, strict=True):
        value.type, value.shape = one.type, one.shape
    ir.convenience.replace_nodes_and_values(graph, nodes[-1], nodes, tape.nodes, old, new)
    for value, name in zip(new, names, strict=True):
        value.name = name
