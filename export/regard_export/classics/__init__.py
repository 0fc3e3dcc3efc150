"""Attention from before, and beside, the Transformer: small modules of plain PyTorch, ready to train and to export.

Each follows `regard_export.modules`, and its file names the paper. They show what a module of one's
own has to look like, and let people look at additive, dot-product, soft, hard, spatial, local and
sparse attention with the same tools.
"""

from regard_export.classics.additive import AdditiveTranslator
from regard_export.classics.captioner import ShowAttendTell
from regard_export.classics.dot_product import DotProductTranslator
from regard_export.classics.policy import AttentivePolicy
from regard_export.classics.spatial import SpatialDenseNet
from regard_export.classics.transformer import LocalTransformer, SparseTransformer

__all__ = [
    "AdditiveTranslator",
    "AttentivePolicy",
    "DotProductTranslator",
    "LocalTransformer",
    "ShowAttendTell",
    "SparseTransformer",
    "SpatialDenseNet",
]
