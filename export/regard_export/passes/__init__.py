"""What is done to a traced graph before it is lowered: one pass a file, each changes the graph in place."""

from __future__ import annotations

import onnx_ir as ir

from regard_export.passes.biases import drop_zero_biases
from regard_export.passes.norms import unite_norms
from regard_export.passes.packing import pack_projections
from regard_export.passes.products import unflatten_products
from regard_export.passes.reshapes import drop_idle_reshapes
from regard_export.passes.rotations import unite_rotations
from regard_export.passes.scores import cut_before_scores


def simplify(model: ir.Model) -> None:
    """Run every pass; the graph computes what it did before."""
    unflatten_products(model)
    unite_norms(model)
    unite_rotations(model)
    drop_idle_reshapes(model)
    drop_zero_biases(model)
    pack_projections(model)
    cut_before_scores(model)
