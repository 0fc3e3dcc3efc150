"""Whether a translation's tags enclose the right words: documents whose right words were written down beforehand."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from tests.serving import serving

from regard.client import AsyncClient

DOCUMENTS = Path(__file__).parent / "data" / "markup.json"
LEAST_SHARE = 0.85


def words_within(document: str, tag: str) -> list[str]:
    """Return the words that the only element `tag` encloses, without case, accents and inner tags."""
    (inner,) = re.findall(rf"<{tag}>(.*)</{tag}>", document, re.DOTALL)
    decomposed = unicodedata.normalize("NFD", re.sub(r"<[^>]*>", "", inner).lower().replace("œ", "oe"))
    return re.findall(r"\w+", "".join(letter for letter in decomposed if not unicodedata.combining(letter)))


async def test_tags_enclose_the_right_words(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the tags of 40 documents, at least 85 % enclose one of each group of right words, and no wrong one."""
    documents = json.loads(DOCUMENTS.read_text())
    async with serving(packages) as target, AsyncClient(target) as client:
        answers = await client.translate_many([one["source"] for one in documents], markup="html")

    tags, wrong = 0, []
    for document, answer in zip(documents, answers, strict=True):
        for expected in document["tags"]:
            tags += 1
            words = words_within(answer.text, expected["tag"])
            groups = expected["one_of_each"]
            allowed = {word for group in groups for word in group} | set(expected["may_hold"])
            if not set(words) <= allowed or not all(set(words) & set(group) for group in groups):
                wrong.append(f"{document['source']} => {answer.text}: <{expected['tag']}>")
    share = 1 - len(wrong) / tags
    with capsys.disabled():
        print(
            f"\n{tags - len(wrong)} of {tags} tags ({share:.1%}) enclose the right words; the others:", *wrong, sep="\n"
        )

    assert share >= LEAST_SHARE
