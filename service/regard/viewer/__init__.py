"""The drawing of attention in a browser: what the report, the playground and notebooks share.

`parts/` holds the viewer, in the order of `SCRIPTS`: an answer's document goes in, and elements come
out that a person looks at with a pointer or with the keyboard. `page` puts it into whole pages.
"""

from regard.viewer.page import Page, embed_json, make_page
from regard.viewer.pictures import embed
from regard.viewer.weights import MOST_WEIGHTS, Encoding, choose_encoding, encode_weights

__all__ = [
    "MOST_WEIGHTS",
    "Encoding",
    "Page",
    "choose_encoding",
    "embed",
    "embed_json",
    "encode_weights",
    "make_page",
]
