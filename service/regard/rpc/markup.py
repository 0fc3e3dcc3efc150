"""The markup of a source, carried over to what was made of it."""

from __future__ import annotations

import numpy as np

from regard.rpc.generation import Product
from regard.text.markup.document import Document
from regard.text.markup.projection import project
from regard.text.markup.writing import write_document
from regard.v1 import generation_pb2


def mark(product: Product, document: Document, *, keep_alignment: bool) -> None:
    """Write the markup of `document` into the text of every sequence, by its alignment, which may be dropped then."""
    for sequence in (product.best, *product.further):
        sequence.text = _marked(sequence, document)
        if not keep_alignment:
            sequence.ClearField("alignment")


def _marked(sequence: generation_pb2.GeneratedSequence, document: Document) -> str:
    sources, targets = (
        [(word.start, word.end) for word in words]
        for words in (sequence.alignment.source_words, sequence.alignment.target_words)
    )
    weights = np.zeros((len(targets), len(sources)))
    for link in sequence.alignment.links:
        weights[link.target_word, link.source_word] = link.weight
    return write_document(sequence.text, targets, project(document.nodes, sources, weights))
