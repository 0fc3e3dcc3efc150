"""`regard score`, and what the client makes of scores, on a canned server."""

from __future__ import annotations

import json

import pytest

from regard.client import AsyncClient, Client, Failure

from .test_cli import run

__all__ = ["run"]


def test_a_pair_has_its_score_and_its_tokens(run):
    """The log-probability and the perplexity stand on the first line, and each token on one of its own."""
    code, out, _ = run("score", "they grow", "ILS POUSSENT")
    assert (code, out.splitlines()) == (0, ["-1.0000\t1.6487", "-0.5000\tILS", "-0.5000\tPOUSSENT"])


def test_lines_are_scored_in_order_and_a_bad_one_is_told_of(run):
    """A line each on stdout, empty for what fails, which is on stderr with its line; the command ends with 1."""
    lines = b"they grow\tILS POUSSENT\nbad\tMAL\n\nyes OUI\nyes\tOUI\n"
    code, out, err = run("score", stdin=lines)
    assert (code, out.splitlines()) == (1, ["-1.0000\t1.6487", "", "", "", "-0.5000\t1.6487"])
    assert err.splitlines() == [
        "error: line 2: the text is bad; send a better one (INVALID_ARGUMENT)",
        "error: line 4: no text and translation with a tab between (INVALID_ARGUMENT)",
    ]
    records = [json.loads(line) for line in run("score", "--json", stdin=lines)[1].splitlines()]
    assert [record and (record["source"], record["target"], "failure" in record) for record in records] == [
        ("they grow", "ILS POUSSENT", False),
        ("bad", "MAL", True),
        None,
        ("yes OUI", "", True),
        ("yes", "OUI", False),
    ]


def test_json_holds_both_sides(run, server):
    """A record has the text, its translation and the score; options travel."""
    _, out, _ = run("score", "yes", "OUI", "--json", "--target-language", "fr", "--model", "a/2", "--truncate")
    record = json.loads(out)
    assert (record["source"], record["target"], record["log_probability"]) == ("yes", "OUI", -0.5)
    (sent,) = server.requests
    assert (sent.model_name, sent.model_version, sent.target_language, sent.truncate) == ("a", "2", "fr", True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["yes"], "give a text and its translation"),
        (["yes", "OUI", "--file", "a.tsv"], "give a text and its translation"),
        ([], "name a file with --file"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, arguments, problem):
    """The command ends with 2 and says what to do."""
    code, _, err = run("score", *arguments)
    assert (code, problem in " ".join(err.split())) == (2, True)


async def test_both_clients_score(server):
    """A score has its tokens and its perplexity; a failure names the caller's own pair."""
    with Client(server.target, inputs_per_request=1) as client:
        own = client.score_translation("yes", "OUI")
        pairs = client.score_translation_many([("yes", "OUI"), ("bad", "MAL")])
    async with AsyncClient(server.target) as client:
        assert await client.score_translation("yes", "OUI") == own == pairs[0]
    assert [token.token for token in own.tokens] == ["OUI"]
    assert own.perplexity == pytest.approx(1.6487, abs=1e-4)
    assert isinstance(pairs[1], Failure) and pairs[1].field == "pairs[1].text"
