"""Markup that is read from a document and written into any translation of it, however its words are linked."""

from __future__ import annotations

import html
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.errors import InvalidInputError
from regard.text.markup.document import Markup, read_document
from regard.text.markup.placeholders import split
from regard.text.markup.projection import project
from regard.text.markup.writing import write_document

PLACEHOLDERS = ("{name}", "{{user.name}}", "${count}", "%s", "%(total)d", "https://example.org/a?b=1&c=2#d")
WORD = re.compile(r"\w+|[^\w\s]")
TAG = re.compile(r"<[^>]*>")

words = st.lists(st.sampled_from(["red", "cat", "a < b", "R&D", "é", "“so”", "5 > 4"]), min_size=1, max_size=4).map(
    " ".join
)
placeholders = st.sampled_from(PLACEHOLDERS).map(lambda one: f" {html.escape(one, quote=False)} ")
texts = words.map(lambda text: html.escape(text, quote=False))
voids = st.sampled_from(['<x id="1"/>', "<x id='a&amp;b' equiv-text=\"&lt;br&gt;\"/>", "<!-- note -->"])
attributes = st.sampled_from(["", ' id="1"', " ctype='x-b'  id = \"é&quot;\""])


def element(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Elements around what `inner` draws."""
    return st.builds(
        lambda attribute, children: f"<g{attribute}>{''.join(children)}</g>", attributes, st.lists(inner, max_size=4)
    )


documents = st.lists(st.recursive(st.one_of(texts, placeholders, voids), element, max_leaves=12), max_size=5).map(
    lambda parts: "word " + "".join(parts)
)


def marked(document: str, translation: str, links: np.ndarray | None = None, markup: Markup = Markup.XLIFF) -> str:
    """Return `translation` with the markup of `document`; its words are linked in order if no links are given."""
    read = read_document(document, markup, "text")
    sources = [found.span() for found in WORD.finditer(read.text)]
    targets = [found.span() for found in WORD.finditer(translation)]
    weights = np.eye(len(targets), len(sources)) if links is None else links
    return write_document(translation, targets, project(read.nodes, sources, weights))


@settings(max_examples=500, deadline=None)
@given(documents, st.lists(st.sampled_from(["le", "chat", "d'eau", "&", "<", "!", "É"]), max_size=9), st.data())
def test_any_document_comes_back_whole(document: str, translated: list[str], data: st.DataObject) -> None:
    """Whatever the links: well-formed, every tag and placeholder once and as it was, and no other letter changed."""
    translation = " ".join(translated)
    sources = len(WORD.findall(read_document(document, Markup.XLIFF, "text").text))
    shape = (len(WORD.findall(translation)), sources)
    seed = data.draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    links = generator.random(shape) * (generator.random(shape) < 2 / max(sources, 1))

    result = marked(document, translation, links)

    ElementTree.fromstring(f"<r>{result}</r>")
    assert Counter(TAG.findall(result)) == Counter(TAG.findall(document))
    parts = [part for part, is_placeholder in split(html.unescape(TAG.sub("\x1f", document))) if is_placeholder]
    rest = html.unescape(TAG.sub("", result))
    for part in sorted(parts, key=len, reverse=True):
        assert part in rest
        rest = rest.replace(part, "", 1)
    assert not [part for part, is_placeholder in split(rest) if is_placeholder]
    assert "".join(rest.split()) == "".join(translation.split())


@pytest.mark.parametrize(
    ("document", "translation", "expected"),
    [
        ("I <b>saw</b> him", "Je vis lui", "Je <b>vis</b> lui"),
        ("<p>All of <b>it</b></p>", "Tout de cela oui", "<p>Tout de <b>cela oui</b></p>"),
        ("One<br>two", "Un deux", "Un<br> deux"),
        ("See {name}, now", "Vois , maintenant", "Vois {name}, maintenant"),
        ("<i>{name}</i> sleeps", "dort", "<i>{name}</i> dort"),
        ("a <b></b>c", "x y", "x <b></b>y"),
        ("Say &lt;b&gt; &amp; go", "Dis < b > & va", "Dis &lt; b &gt; &amp; va"),
        ('Use <code translate="no">x = <b>1</b></code> here', "Utilise ici", None),
    ],
)
def test_markup_stands_where_its_words_do(document: str, translation: str, expected: str | None) -> None:
    """Words linked in order carry their tags; marks stand between the same words, white space outside of tags."""
    result = marked(document, translation, markup=Markup.HTML)

    assert result == (expected or 'Utilise <code translate="no">x = <b>1</b></code> ici')


@pytest.mark.parametrize("section", ["<![CDATA[a]]>", "<![if !IE]>", "<![endif]>"])
def test_a_section_is_a_mark(section: str) -> None:
    """One that the parser knows comes back as it was."""
    assert marked(f"{section}x y", "u v", markup=Markup.HTML) == f"{section}u v"


def test_crossing_elements_follow_their_words() -> None:
    """Elements whose words change places change places; a mark between them goes where the fewest links cross."""
    links = np.eye(3)[::-1]

    assert marked("<g>a</g> <x id='1'/><g id='2'>b</g> c", "z y x", links) == "<x id='1'/>z <g id='2'>y</g> <g>x</g>"


def test_pairs_of_empty_tags_span_words() -> None:
    """The tags that begin and end something stand around its words, as one element's do."""
    document = 'a <bx id="1"/>b<ex id="1"/> c'

    assert marked(document, "x y z", np.eye(3)[[1, 0, 2]]) == '<bx id="1"/>x<ex id="1"/> y z'


def test_pairs_that_cross_are_marks() -> None:
    """Of two things that overlap, which no element can, the first is an element and the other's tags stand alone."""
    read = read_document('<sc id="1"/>a <sc id="2"/>b<ec startRef="1"/> c<ec startRef="2"/>', Markup.XLIFF, "text")

    assert [(node.opening, node.closing) for node in read.nodes] == [
        ('<sc id="1"/>', '<ec startRef="1"/>'),
        ('<ec startRef="2"/>', ""),
    ]
    assert [node.opening for node in read.nodes[0].children] == ['<sc id="2"/>']


@pytest.mark.parametrize(
    ("markup", "document", "problem"),
    [
        (Markup.HTML, "a <b>x", "<b> is never closed, at position 2"),
        (Markup.HTML, "a</b>", "</b> closes nothing, at position 1"),
        (Markup.HTML, "a <b><i>x</b></i>", "</b> closes <i> of position 5, at position 9"),
        (Markup.HTML, "é\na <b x", "a tag has no end; write &lt; for the character <, at position 4"),
        (Markup.HTML, "é\nx <![foo> y", "no section that is known; write &lt; for the character <, at position 4"),
        (Markup.HTML, "x <![foo]> y", "no section that is known; write &lt; for the character <, at position 2"),
        (Markup.HTML, "house <![x[ y ]]>", "<![ begins no section that is known"),
        (Markup.HTML, "x <![]> y", "<![ begins no section that is known"),
        (Markup.HTML, "x <![cdatas[y]]>", "<![ begins no section that is known"),
        (Markup.HTML, "<br>{name}", "holds no text beside its markup"),
        (Markup.XLIFF, "é <g>x", "no well-formed XML (mismatched tag), at position 6"),
        (Markup.XLIFF, "a <b>x</b>", "<b> is no inline element of XLIFF, at position 2"),
        (Markup.XLIFF, "a &nbsp;", "no well-formed XML (undefined entity), at position 2"),
        (Markup.XLIFF, '<!DOCTYPE a [<!ENTITY b "c">]>&b;', "no well-formed XML"),
        (Markup.HTML, "<b>" * 101 + "x" + "</b>" * 101, "nested more than 100 deep, at position 300"),
        (Markup.HTML, "x" + "<br>" * 4097, "more than 4096 tags, the most that are taken, at position 16385"),
        (Markup.HTML, "<a " * 40000, "a tag has no end; write &lt; for the character <, at position 0"),
        (Markup.HTML, "<b>x</b><script>y", "a tag has no end; write &lt; for the character <, at position 8"),
        (Markup.HTML, "x" * (2**17 + 1), "131073 characters, tags included"),
        (Markup.XLIFF, "a</regard><regard>b", "no well-formed XML"),
    ],
)
def test_malformed_markup_is_refused(markup: Markup, document: str, problem: str) -> None:
    """The error names the field, the problem and where it is."""
    with pytest.raises(InvalidInputError) as caught:
        read_document(document, markup, "texts[3]")

    assert caught.value.field == "texts[3]"
    assert caught.value.message.startswith("texts[3]")
    assert problem in caught.value.message


@pytest.mark.parametrize("markup", Markup)
@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "is empty; it needs at least 1 character"),
        (" \t", "is nothing but white space"),
        ("<b>a\0</b>", "holds a NUL (U+0000) at position 4"),
        ("a \ud800", "holds a lone surrogate (U+D800) at position 2"),
    ],
)
def test_a_document_is_a_text(markup: Markup, document: str, problem: str) -> None:
    """What is none is refused in the words that it is without markup."""
    with pytest.raises(InvalidInputError) as caught:
        read_document(document, markup, "texts[3]")

    assert caught.value.field == "texts[3]"
    assert caught.value.message.startswith(f"texts[3] {problem}")


def test_only_placeholders_are_placeholders() -> None:
    """A percentage, a sentence's stop behind an address and a lone brace are text."""
    parts = [part for part, is_placeholder in split("50% de {a}, 5 %d; www.a.org/b. {") if is_placeholder]

    assert parts == ["{a}", "%d", "www.a.org/b"]
