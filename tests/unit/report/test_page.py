from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from regard.report import render, write_report
from regard.viewer import embed_json

from .answers import caption, classification, translation

HOSTILE = "</script><img src=x onerror=alert(1)> <!-- \u2028\u2029 & ]]> \u202e \ud83d"


def element(page: str, tag: str) -> str:
    """Return the content of the page's last element of that tag."""
    *_, content = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL)
    return content


def test_the_page_is_one_file_that_fetches_nothing():
    """Nothing on the page names a place to fetch from, and its policy forbids to."""
    page = render([translation(), classification(), caption()])

    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert set(re.findall(r"https?://[^\s'\"]+", page)) == {"http://www.w3.org/2000/svg"}


def test_the_policy_admits_the_page_s_own_script_and_style_alone():
    """The policy names script and style by their hashes, and no other may run."""
    page = render([translation()])

    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(element(page, tag).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page


def test_text_cannot_leave_its_element():
    """Whatever a model or a user wrote, the document is ASCII without markup, and reads back as it was."""
    written = embed_json({"text": HOSTILE})

    assert written.isascii()
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"text": HOSTILE}


def test_placeholders_in_a_text_stay():
    """A text that looks like a placeholder of the page is no placeholder."""
    assert "costs $document or ${policy}" in render([translation("it costs $document or ${policy}")])


def test_a_report_is_written_to_a_file(tmp_path):
    """The file holds what `render` returns."""
    write_report(tmp_path / "attention.html", [translation()])

    assert (tmp_path / "attention.html").read_text("utf-8") == render([translation()])


def test_a_report_of_hostile_answers_is_written():
    """A page of hostile texts has no more elements of script than another."""
    assert render([translation(HOSTILE, HOSTILE)]).count("<script") == render([translation()]).count("<script")


def test_a_report_that_cannot_be_written_says_so(tmp_path):
    """A directory that isn't there is an `OSError`, as everywhere in Python."""
    with pytest.raises(OSError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "attention.html", [translation()])
