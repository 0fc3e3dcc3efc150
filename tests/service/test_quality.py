"""Quality, glossaries and copied words, as a caller of the demonstration translator sees them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.serving import serving

from regard.client import AsyncClient, AttentionOptions, RequestFailed, Translation
from regard.errors import InvalidInputError
from regard.manifest import AlignmentHead, AlignmentSpec, GraphSpec, Task
from regard.v1 import translation_pb2

from .conftest import Serve, write_package
from .test_translation import CAT, request_of

ORANGES = "They grow oranges in California."


async def test_a_translation_is_judged_by_its_own_probabilities_and_attention(client: AsyncClient) -> None:
    """Greedy or beam, every sequence's confidence is its tokens', its coverage its alignment's; a sound one passes."""
    answer = await client.translate(ORANGES, quality=True, alignment=True, num_beams=3, num_return_sequences=2)

    assert answer.quality is not None and answer.quality.warnings == ()
    assert "no warnings" in str(answer.quality)
    for sequence in (answer, *answer.further_sequences):
        quality, alignment = sequence.quality, sequence.alignment
        assert quality is not None and alignment is not None
        assert quality.confidence == pytest.approx(np.exp(sequence.log_probability / sequence.target_tokens))
        linked = {link.source for link in alignment.links}
        words = zip(alignment.source_words, alignment.source_coverage, strict=True)
        covered = [(reached + (word in linked)) / 2 for word, reached in words]
        assert quality.coverage == pytest.approx(np.mean(covered), abs=1e-6)
        assert quality.score == pytest.approx(quality.coverage * quality.confidence**0.25 * (1 - quality.repetition))


async def test_what_was_left_out_and_said_again_is_told(client: AsyncClient) -> None:
    """A prefix that the model is made to write repeats itself; one that ends at once leaves words out."""
    again = await client.translate(ORANGES, quality=True, target_prefix="Ils font ils font ils font ils font")
    short = await client.translate(
        "She bought bread and milk at the market.", quality=True, target_prefix="Elle a acheté.", max_new_tokens=1
    )

    assert again.quality is not None and "repetition" in again.quality.warnings
    assert short.quality is not None and "under_translation" in short.quality.warnings
    assert "market" in [word.text for word in short.quality.uncovered_words]


async def test_coverage_and_confidence_stand_beside_the_words(client: AsyncClient) -> None:
    """A target word's confidence is its tokens' probability; a source word's coverage sums its column of attention."""
    options = AttentionOptions(reduction="alignment_heads", granularity="word")
    answer = await client.translate(ORANGES, alignment=True, token_logprobs=True, attention=options)

    assert answer.alignment is not None and answer.attention is not None
    (one,) = answer.attention.maps
    words = [place for place, word in enumerate(one.queries) if not word.special]
    keys = [place for place, word in enumerate(one.keys) if not word.special]
    expected = np.minimum(one.weights[0][np.ix_(words, keys)].sum(axis=0), 1)
    assert answer.alignment.source_coverage == pytest.approx(expected, abs=1e-5)
    spoken = sum(token.log_probability for token in answer.tokens[:-1])
    assert np.log(answer.alignment.target_confidence).sum() == pytest.approx(spoken, abs=1e-4)


async def test_a_glossary_is_checked_occurrence_by_occurrence(client: AsyncClient) -> None:
    """What is kept, with both spans, and what isn't, with what stands in its place; the text is as without it."""
    entries = [("orange*", "orange*"), ("California", "Floride"), ("apple", "pomme")]
    answer = await client.translate(ORANGES, glossary=entries)

    kept, missing = answer.glossary
    assert (kept.verdict, kept.source.text, kept.target and kept.target.text) == ("kept", "oranges", "oranges")
    assert kept.target is not None
    assert ORANGES[kept.source.start : kept.source.end] == answer.text[kept.target.start : kept.target.end] == "oranges"
    assert (missing.verdict, missing.entry, missing.target) == ("missing", 1, None)
    assert [word.text for word in missing.linked_words] == ["Californie"]
    assert str(missing) == "California → Californie: missing (expected: Floride)"
    assert answer.text == (await client.translate(ORANGES)).text
    assert answer.alignment is None and answer.quality is None


async def test_an_unknown_word_is_copied_and_linked(client: AsyncClient) -> None:
    """A token that the vocabulary lacks becomes the source word it attends to, and spans and links are that word's."""
    text, asked = "My name is 山田.", {"target_prefix": "Je m'appelle 山"}
    plain = await client.translate(text, **asked)
    copied = await client.translate(
        text, replace_unknowns=True, alignment=True, quality=True, glossary=[("山田", "山田")], **asked
    )

    assert "山田" not in plain.text
    assert copied.text.startswith("Je m'appelle 山田")
    assert copied.alignment is not None
    assert all(copied.text[word.start : word.end] == word.text for word in copied.alignment.target_words)
    assert [match.verdict for match in copied.glossary] == ["kept"]


async def test_markup_goes_around_what_was_copied(client: AsyncClient) -> None:
    """The unknown word is copied before tags are placed."""
    answer = await client.translate(
        "My name is <b>山田</b>.", markup="html", replace_unknowns=True, target_prefix="Je m'appelle 山"
    )

    assert "<b>山田" in answer.text
    assert answer.text.count("</b>") == 1


async def test_without_unknown_words_nothing_changes(client: AsyncClient) -> None:
    """A text of known words is the same with and without copying."""
    assert (await client.translate(ORANGES, replace_unknowns=True)).text == (await client.translate(ORANGES)).text


async def test_a_stream_ends_with_quality_and_glossary(client: AsyncClient) -> None:
    """The last event carries what the same request gives unstreamed; copying is refused before it is sent."""
    asked = {"quality": True, "glossary": [("oranges", "oranges")]}
    whole = await client.translate(ORANGES, **asked)

    events = [event async for event in client.stream_translate(ORANGES, **asked)]

    last = events[-1]
    assert isinstance(last, Translation)
    assert (last.quality, last.glossary) == (whole.quality, whole.glossary)
    with pytest.raises(InvalidInputError, match="replace_unknowns: a stream"):
        [event async for event in client.stream_translate(ORANGES, replace_unknowns=True)]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("a", "b")] * 1025, "glossary has 1025 entries; at most 1024"),
        ([("a", "b")] * 9, r"glossary\[8\]\.source: a term has at most 8 entries"),
        ([("car", "auto"), (" ", "b")], r"glossary\[1\]\.source is empty"),
        ([("car", "")], r"glossary\[0\]\.target is empty"),
        ([("car", "o" * 201)], r"glossary\[0\]\.target has 201 characters; a term has at most 200"),
    ],
)
async def test_a_glossary_that_can_not_be_checked_is_refused(
    client: AsyncClient, entries: list[tuple[str, str]], problem: str
) -> None:
    """The refusal names the entry, the side and the limit."""
    with pytest.raises(RequestFailed, match=problem):
        await client.translate(ORANGES, glossary=entries)


@pytest.mark.parametrize(
    "fields", [{"quality": True}, {"glossary": [{"source": "a", "target": "b"}]}, {"replace_unknowns": True}]
)
async def test_a_package_that_was_not_calibrated_is_refused(serve: Serve, fields: dict[str, object]) -> None:
    """Without alignment heads nothing is known of words; the refusal names the field and what to do."""
    async with serve() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.translation.Translate(translation_pb2.TranslateRequest(texts=["Hello!"], **fields))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{next(iter(fields))}: model echo" in (caught.value.details() or "")


async def test_a_sampled_request_answers_as_any_other(client: AsyncClient, packages: Path) -> None:
    """With the health of every request's attention measured, texts are the same, and figures to rounding."""
    async with serving(packages, attention_health_share=1.0) as target, AsyncClient(target) as sampled:
        for text, beams in product((ORANGES, "Go!"), (1, 3)):
            ours, theirs = [await asking.translate(text, num_beams=beams) for asking in (client, sampled)]
            assert theirs.text == ours.text
            assert theirs.log_probability == pytest.approx(ours.log_probability, abs=1e-5)
            assert theirs.score == pytest.approx(ours.score, abs=1e-5)
            assert theirs.attention is ours.attention is None


async def test_a_share_of_the_requests_is_measured(serve: Serve) -> None:
    """All, or none at all; a scripted model that isn't calibrated is measured by all of its heads."""
    names = ("entropy", "coverage", "sinks", "repetition", "repeated_output")
    for share, count in ((1.0, 2), (0.0, 0)):
        async with serve(attention_health_share=share) as running:
            response = await running.translation.Translate(request_of(CAT, CAT))
            labels = {"model": "echo", "version": "1"}
            for name in names:
                assert running.metric(f"regard_attention_{name}_ratio_count", **labels) == count
            assert bool(running.worker().seen[0].taps) is (share > 0)
            assert not response.results[0].translation.HasField("attention")


async def test_what_a_request_changes_is_not_the_models_health(serve: Serve, tmp_path: Path) -> None:
    """A request with interventions is never sampled."""
    graph = GraphSpec(file="none", inputs=(), outputs=(), operators={}, optimized_operators={}, intervened_graph="twin")
    write_package(tmp_path, "echo", "1", Task.TRANSLATION, graphs={"encoder": graph, "step": graph})
    async with serve(tmp_path, attention_health_share=1.0) as running:
        for interventions in ((), ({"knock_out": {}},)):
            await running.translation.Translate(request_of(CAT, interventions=interventions))

        assert [bool(seen.taps) for seen in running.worker().seen] == [True, False]
        assert running.metric("regard_attention_entropy_ratio_count", model="echo", version="1") == 1


ALIGNMENT = AlignmentSpec(
    heads=(AlignmentHead(layer=1, head=0, position="output"),), method="argmax", tension=0, pairs=1, silver_aer=0.5
)


async def test_what_tells_of_words_has_a_budget_of_weights(serve: Serve, tmp_path: Path) -> None:
    """The one that attention has, by the name of the field that asks; beside attention, one for both."""
    write_package(tmp_path, "echo", "1", Task.TRANSLATION, alignment=ALIGNMENT)
    async with serve(tmp_path, max_attention_bytes=1 << 20) as running:
        await running.translation.Translate(request_of(CAT, CAT, quality=True))
        await running.translation.Translate(request_of(CAT, alignment=True, attention={"layers": [0]}))
        quality, _, both = running.worker().seen

    assert quality.tap_budget == ({"decoder.cross.1"}, 16 << 20, ("quality",))
    assert both.tap_budget == ({"decoder.cross.0", "decoder.cross.1"}, 32 << 20, ("attention", "alignment"))


async def test_an_output_that_could_have_too_many_weights_is_not_sampled(serve: Serve) -> None:
    """Nobody is refused for what the server wants to know; a server that may read less looks at fewer requests."""
    for budget, sampled in ((1 << 20, True), (64, False)):
        async with serve(attention_health_share=1.0, max_attention_bytes=budget) as running:
            await running.translation.Translate(request_of(CAT))
            assert bool(running.worker().seen[0].taps) is sampled
            count = running.metric("regard_attention_entropy_ratio_count", model="echo", version="1")
            assert count == sampled
