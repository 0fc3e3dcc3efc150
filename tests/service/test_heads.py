"""Random models that answer in one step, behind a real server: what they say is what eager Transformers says."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from typer.testing import CliRunner

from regard.cli.app import app
from regard.client import AsyncClient, AttentionOptions, ComparedImage, ComparedText, Failure, RequestFailed
from regard_export.package import Options, export

from ..export.checkpoints import save_classifier, save_clip, save_siglip  # noqa: TID252 - tests are no package of sys.path
from ..export.vocabularies import word_pieces  # noqa: TID252 - tests are no package of sys.path
from ..serving import answers_of, serving, serving_in_thread  # noqa: TID252 - tests are no package of sys.path

TOLERANCE = 1e-5
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
MODEL_TOKENS = 48
TEXTS = (
    "The cat sat on the well-known mat, and the man knows translation.",
    "Hello, world!",
    "I",
    "It was the best of times, it was the worst of times; je ne sais pas où est le chat. " * 3,
)
CONTEXT = "The cat sat on the mat. I don't know where the well-known café is. It was the best of times. " * 3
QUESTIONS = (("Where is the cat?", CONTEXT), ("What?", "The café."), ("Is it the best of times?", TEXTS[0]))


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "topics": {"problem_type": "multi_label_classification"},
    "judge": {"num_labels": 1},
    "mood": {"num_labels": 2},
}
"""Models whose classes exclude one another, and whose don't."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of a token classifier, a question answerer, CLIP, SigLIP and classifiers of several kinds."""
    at = tmp_path_factory.mktemp("checkpoints")
    sizes = {"vocab_size": 150, "pad_token_id": 0, "max_position_embeddings": MODEL_TOKENS}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    save_classifier(at / "tagger", "Bert", "TokenClassification", **sizes | labels | {"num_labels": len(LABELS)})
    save_classifier(at / "reader", "Bert", "QuestionAnswering", **sizes)
    for name, kind in CLASSIFIERS.items():
        save_classifier(at / name, **sizes | kind)
    for name in ("tagger", "reader", *CLASSIFIERS):
        word_pieces(MODEL_TOKENS).save_pretrained(at / name)
    save_clip(at / "clip")
    save_siglip(at / "siglip")
    return at


@pytest.fixture(scope="module")
def heads(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return their packages' directory."""
    models = tmp_path_factory.mktemp("heads")
    for checkpoint in checkpoints.iterdir():
        export(checkpoint, models, Options(name=checkpoint.name))
    return models


@pytest.fixture(scope="module")
def address(heads: Path) -> Iterator[str]:
    """Yield where a server of them all listens."""
    with serving_in_thread(heads) as address:
        yield address


@pytest.mark.parametrize("name", CLASSIFIERS)
async def test_probabilities_are_those_of_transformers_pipeline(
    client: AsyncClient, checkpoints: Path, name: str
) -> None:
    """Classes that exclude one another share a probability of 1; others, and a single one, have one each."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoints / name)
    pipeline = transformers.TextClassificationPipeline(model=model, tokenizer=tokenizer_of(checkpoints / name))
    for text, ours in zip(TEXTS[:3], await client.classify_many(TEXTS[:3], model=name), strict=True):
        assert not isinstance(ours, Failure)
        theirs = {one["label"]: one["score"] for one in pipeline(text, top_k=None)}
        assert {one.label: one.probability for one in ours.classes} == pytest.approx(theirs, abs=TOLERANCE)
    explained = await client.attribute_class(TEXTS[0], model=name)
    assert explained.explained.probability == pytest.approx(pipeline(TEXTS[0])[0]["score"], abs=TOLERANCE)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_command_shows_the_classes_that_there_are(address: str, name: str) -> None:
    """However few they are."""
    shown = CliRunner().invoke(app, ["classify", TEXTS[1], "--model", name, "--server", address])
    assert shown.exit_code == 0
    assert shown.output.count("LABEL_") == CLASSIFIERS[name].get("num_labels", 3)


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
async def test_entities_are_those_of_transformers_pipeline(
    client: AsyncClient, checkpoints: Path, strategy: Any
) -> None:
    """Labels, scores and spans, of texts that are batched and padded together."""
    model = transformers.AutoModelForTokenClassification.from_pretrained(checkpoints / "tagger")
    pipeline = transformers.TokenClassificationPipeline(
        model=model, tokenizer=tokenizer_of(checkpoints / "tagger"), aggregation_strategy=strategy
    )
    found = await client.classify_tokens_many(TEXTS, aggregation=strategy, truncate=True)
    entities = 0
    for text, ours in zip(TEXTS, found, strict=True):
        assert not isinstance(ours, Failure)
        theirs = pipeline(text)
        assert [(e.label, e.start, e.end) for e in ours.entities] == [
            (e["entity_group"], e["start"], e["end"]) for e in theirs
        ]
        assert [e.score for e in ours.entities] == pytest.approx([e["score"] for e in theirs], abs=TOLERANCE)
        assert [e.text for e in ours.entities] == [text[e["start"] : e["end"]] for e in theirs]
        entities += len(theirs)
    assert entities > 5


async def test_every_token_has_its_classes(client: AsyncClient, checkpoints: Path) -> None:
    """Without aggregation, what is no O is what the pipeline gives; more classes come if asked for."""
    model = transformers.AutoModelForTokenClassification.from_pretrained(checkpoints / "tagger")
    pipeline = transformers.TokenClassificationPipeline(model=model, tokenizer=tokenizer_of(checkpoints / "tagger"))
    ours = await client.classify_tokens(TEXTS[0], aggregation="none", top_k=2)
    tokens = [token for token in ours.tokens if token.classes[0].label != "O"]
    theirs = pipeline(TEXTS[0])
    assert [(t.token, t.classes[0].label, t.index, t.start, t.end) for t in tokens] == [
        (t["word"], t["entity"], t["index"], t["start"], t["end"]) for t in theirs
    ]
    assert [t.classes[0].probability for t in tokens] == pytest.approx([t["score"] for t in theirs], abs=TOLERANCE)
    assert ours.entities == ()
    assert {len(token.classes) for token in ours.tokens} == {2}


async def test_more_labels_than_are_left_out_are_refused(client: AsyncClient) -> None:
    """By their number, with the limit."""
    with pytest.raises(RequestFailed, match="ignored_labels has 1025 labels; at most 1024"):
        await client.classify_tokens(TEXTS[1], ignored_labels=["O"] * 1025)


async def test_bad_texts_fail_alone(client: AsyncClient) -> None:
    """An empty and a long one; the others are answered, and attention is the tokens' own."""
    attention = AttentionOptions(layers=[1], heads=[0, 2])
    found = await client.classify_tokens_many(["", TEXTS[3], TEXTS[1]], attention=attention)
    assert isinstance(found[0], Failure)
    assert isinstance(found[1], Failure)
    assert f"at most {MODEL_TOKENS}" in found[1].message
    assert not isinstance(found[2], Failure)
    assert found[2].attention is not None
    (one,) = found[2].attention.maps
    assert one.weights.shape == (2, found[2].source_tokens, found[2].source_tokens)
    assert [segment.text for segment in one.keys if not segment.special] == [token.token for token in found[2].tokens]


def tokenizer_of(checkpoint: Path) -> Any:
    """Return Transformers' tokenizer of a checkpoint."""
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


def reader(checkpoints: Path) -> Any:
    """Return the eager question answerer."""
    return transformers.AutoModelForQuestionAnswering.from_pretrained(
        checkpoints / "reader", attn_implementation="eager"
    )


def windows_of(checkpoints: Path, question: str, context: str, window: int, overlap: int) -> Any:
    """Return what Transformers' tokenizer makes of a question and a long context."""
    return tokenizer_of(checkpoints / "reader")(
        question,
        context,
        truncation="only_second",
        max_length=window,
        stride=overlap,
        return_overflowing_tokens=True,
    )


def eager_answers(
    model: Any, windows: Any, max_tokens: int, *, words: bool
) -> tuple[dict[tuple[int, int], float], float]:
    """Return the best score of every span, and that of no answer, by the pipeline's rule from eager logits."""
    best: dict[tuple[int, int], float] = {}
    null = 1.0
    for encoding in windows.encodings:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([encoding.ids]), token_type_ids=torch.tensor([encoding.type_ids]))
        allowed = np.array([part == 1 for part in encoding.sequence_ids])
        allowed[0] = True
        ends = [np.where(allowed, logits[0].numpy(), -10000.0) for logits in (output.start_logits, output.end_logits)]
        start, end = (np.exp(each - each.max()) / np.exp(each - each.max()).sum() for each in ends)
        null = min(null, float(start[0] * end[0]))
        start[0] = end[0] = 0
        scores = np.tril(np.triu(np.outer(start, end)), max_tokens - 1)
        for first, last in zip(*np.nonzero(scores), strict=True):
            span = encoding.offsets[first][0], encoding.offsets[last][1]
            if words:
                outer = [encoding.word_to_chars(encoding.token_to_word(int(token)), 1) for token in (first, last)]
                span = outer[0][0], outer[1][1]
            best[span] = max(best.get(span, 0.0), float(scores[first, last]))
    return best, null


@pytest.mark.parametrize("words", [True, False], ids=["whole words", "tokens"])
async def test_answers_are_the_best_spans_of_all_windows(client: AsyncClient, checkpoints: Path, words: bool) -> None:
    """Scores, spans and the score of no answer, of contexts short and long, batched together."""
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(
        checkpoints / "reader", attn_implementation="eager"
    )
    found = await client.answer_many(
        QUESTIONS, top_k=5, max_answer_tokens=4, align_to_words=words, window_tokens=32, overlap_tokens=7
    )
    for (question, context), ours in zip(QUESTIONS, found, strict=True):
        assert not isinstance(ours, Failure)
        windows = windows_of(checkpoints, question, context, 32, 7)
        best, null = eager_answers(model, windows, 4, words=words)
        expected = sorted(best.values(), reverse=True)[:5]
        assert ours.windows == len(windows.encodings)
        assert [one.score for one in ours.answers] == pytest.approx(expected, abs=TOLERANCE)
        for one in ours.answers:
            assert one.score == pytest.approx(best[one.start, one.end], abs=TOLERANCE)
            assert one.text == context[one.start : one.end]
        assert ours.null_score == pytest.approx(null, abs=TOLERANCE)
    assert found[0].windows > 3  # type: ignore[union-attr]


async def test_more_windows_than_may_wait_are_read_one_after_the_other(client: AsyncClient, heads: Path) -> None:
    """However many windows the contexts of a request take, it doesn't fill the queue, and is answered all the same."""
    options: dict[str, Any] = {"model": "reader", "window_tokens": 16, "overlap_tokens": 0}
    expected = await client.answer(*QUESTIONS[0], **options)
    max_queue, questions = 16, [QUESTIONS[0]] * 3
    assert len(questions) * expected.windows > 2 * max_queue
    async with serving(heads, engine={"max_queue": max_queue, "max_rows": 4}) as address, AsyncClient(address) as other:
        found = await other.answer_many(questions, **options)
    for answered in found:
        assert not isinstance(answered, Failure)
        assert answered.windows == expected.windows
        assert [(one.start, one.end) for one in answered.answers] == [(one.start, one.end) for one in expected.answers]


async def test_there_may_be_no_answer(client: AsyncClient) -> None:
    """The empty answer takes its place by its score, if it was asked for."""
    answered = await client.answer(*QUESTIONS[1], top_k=100, handle_impossible_answer=True)
    (nothing,) = [one for one in answered.answers if not one.text]
    assert nothing.score == answered.null_score
    scores = [one.score for one in answered.answers]
    assert scores == sorted(scores, reverse=True)
    assert all(one.text for one in (await client.answer(*QUESTIONS[1], top_k=100)).answers)


async def test_attention_is_that_of_the_best_answers_window(client: AsyncClient, checkpoints: Path) -> None:
    """The question's tokens are of part 0, the context's of part 1 and stand in the whole of it."""
    question, context = QUESTIONS[0]
    answered = await client.answer(question, context, window_tokens=32, overlap_tokens=7, attention=AttentionOptions())
    assert answered.attention is not None
    assert answered.best is not None
    keys = answered.attention.maps[0].keys
    spoken = [key for key in keys if not key.special]
    assert {key.part for key in spoken} == {0, 1}
    own = [key for key in spoken if key.part == 1]
    assert own[0].start <= answered.best.start < answered.best.end <= own[-1].end
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(
        checkpoints / "reader", attn_implementation="eager"
    )
    ids = torch.tensor([[key.token_id for key in keys]])
    types = torch.tensor([[key.part for key in keys]])
    expected = model(input_ids=ids, token_type_ids=types, output_attentions=True).attentions
    for one in answered.attention.maps:
        assert np.abs(one.weights - expected[one.layer][0].detach().numpy()).max() < TOLERANCE


@pytest.mark.parametrize(
    ("question", "context", "options", "field"),
    [
        ("", "The cat.", {}, "question"),
        ("Where?", " ", {}, "context"),
        ("Where? " * 40, "The cat.", {}, "question"),
        ("Where?", "The cat.", {"window_tokens": 20, "overlap_tokens": 19}, "overlap_tokens"),
        ("Where?", "The cat. " * 400, {"window_tokens": 20}, "context"),
    ],
    ids=["no question", "no context", "no room", "too much overlap", "too many windows"],
)
async def test_a_bad_question_is_refused_by_name(
    client: AsyncClient, question: str, context: str, options: Any, field: str
) -> None:
    """The error names what is wrong."""
    with pytest.raises(RequestFailed) as refused:
        await client.answer(question, context, **options)
    assert refused.value.code_name == "INVALID_ARGUMENT"
    assert refused.value.field.endswith(field)


def pictures() -> Iterator[bytes]:
    """Yield image files of the size that the model looks at."""
    random = np.random.default_rng(0)
    for _ in range(3):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "PNG")
        yield file.getvalue()


async def test_a_comparison_is_that_of_clip(client: AsyncClient, checkpoints: Path) -> None:
    """Logits, probabilities, embeddings and the maps of both encoders, of ragged texts; a bad one fails alone."""
    texts = ["a photo of a cat.", "cat", "two cats and three dogs"]
    model = transformers.CLIPModel.from_pretrained(checkpoints / "clip", attn_implementation="eager")
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoints / "clip", backend="pil")
    words = transformers.AutoTokenizer.from_pretrained(checkpoints / "clip")(texts, padding=True, return_tensors="pt")
    pixels = processor([Image.open(io.BytesIO(one)) for one in pictures()], return_tensors="pt").pixel_values
    with torch.no_grad():
        eager = model(**words, pixel_values=pixels, output_attentions=True)

    ours = await client.compare(
        [*pictures(), b"no image"], [*texts, " "], model="clip", embeddings=True, attention=AttentionOptions()
    )

    assert isinstance(ours.images[3], Failure)
    assert isinstance(ours.texts[3], Failure)
    assert np.isnan(ours.logits[3]).all()
    assert np.isnan(ours.logits[:, 3]).all()
    logits = eager.logits_per_image
    assert np.abs(ours.logits[:3, :3] - logits.numpy()).max() < TOLERANCE
    assert np.abs(ours.probabilities[:3, :3] - logits.softmax(-1).numpy()).max() < TOLERANCE
    for row, image in enumerate(ours.images[:3]):
        assert isinstance(image, ComparedImage)
        assert image.embedding == pytest.approx(eager.image_embeds[row].tolist(), abs=TOLERANCE)
        assert image.attention is not None
        for one in image.attention.maps:
            assert one.stack == "image_encoder"
            assert np.abs(one.weights - eager.vision_model_output.attentions[one.layer][row].numpy()).max() < TOLERANCE
    for row, text in enumerate(ours.texts[:3]):
        assert isinstance(text, ComparedText)
        assert text.embedding == pytest.approx(eager.text_embeds[row].tolist(), abs=TOLERANCE)
        assert text.attention is not None
        length = text.source_tokens
        for one in text.attention.maps:
            assert one.stack == "text_encoder"
            expected = eager.text_model_output.attentions[one.layer][row, :, :length, :length].numpy()
            assert np.abs(one.weights - expected).max() < TOLERANCE


async def test_one_kind_of_input_is_enough_for_embeddings(client: AsyncClient) -> None:
    """A stack that is named gives its attention alone; nothing at all is refused."""
    alone = await client.compare([], ["cat"], model="clip", embeddings=True)
    assert isinstance(alone.texts[0], ComparedText)
    assert np.linalg.norm(alone.texts[0].embedding) == pytest.approx(1, abs=TOLERANCE)
    seen = await client.compare(
        [*pictures()], ["cat"], model="clip", attention=AttentionOptions(stacks=["text_encoder"])
    )
    assert isinstance(seen.texts[0], ComparedText)
    assert seen.texts[0].attention is not None
    assert isinstance(seen.images[0], ComparedImage)
    assert seen.images[0].attention is None
    with pytest.raises(RequestFailed, match="images and texts"):
        await client.compare([], [], model="clip")


async def test_a_comparison_by_siglip_is_that_of_transformers_pipeline(client: AsyncClient, checkpoints: Path) -> None:
    """Each pair has a probability of its own; short, long and empty of words, texts are padded to one length."""
    at = checkpoints / "siglip"
    texts = ["A cat!", "the quick brown fox jumps over the lazy dog, and over the lazy dog once more, " * 3, "?!"]
    model = transformers.SiglipModel.from_pretrained(at, attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(at)
    processor = transformers.AutoImageProcessor.from_pretrained(at, backend="pil")
    pipeline = transformers.ZeroShotImageClassificationPipeline(
        model=model, tokenizer=tokenizer, image_processor=processor
    )
    length = model.config.text_config.max_position_embeddings
    images = [*pictures()]

    ours = await client.compare(images, texts, model="siglip", truncate=True, attention=AttentionOptions())

    for image, found in zip(images, ours.images, strict=True):
        assert isinstance(found, ComparedImage)
        theirs = pipeline(Image.open(io.BytesIO(image)), candidate_labels=texts, hypothesis_template="{}")
        probabilities = {texts[score.text_index]: score.probability for score in found.scores}
        assert probabilities == pytest.approx({one["label"]: one["score"] for one in theirs}, abs=TOLERANCE)
    words = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        read = model.text_model(**words, output_attentions=True).attentions
    for row, text in enumerate(ours.texts):
        assert isinstance(text, ComparedText)
        assert text.attention is not None
        assert (text.source_tokens, text.truncated) == (length, row == 1)
        for one in text.attention.maps:
            assert np.abs(one.weights - read[one.layer][row].numpy()).max() < TOLERANCE
        segments = text.attention.maps[0].keys
        assert [segment.token_id for segment in segments] == words.input_ids[row].tolist()
        assert [segment.special for segment in segments] == (words.input_ids[row] == tokenizer.pad_token_id).tolist()
    seen = ours.images[0]
    assert isinstance(seen, ComparedImage)
    assert seen.attention is not None
    pooling = seen.attention.maps[-1].weights
    assert pooling.shape == (4, 17, 17)
    assert pooling[:, 0, 1:].sum(-1) == pytest.approx(1, abs=TOLERANCE)
    assert pooling[:, 0, 1:].max() > 0.1


async def test_reports_show_entities_and_answers(client: AsyncClient, address: str, tmp_path: Path) -> None:
    """--report of `classify-tokens` and `answer` prints what was found as always, and a page marks it in its text."""
    page = tmp_path / "attention.html"

    async def run(*arguments: str) -> Any:
        asked = [*arguments, "--server", address, "--report", str(page)]
        return await asyncio.to_thread(CliRunner().invoke, app, asked)

    tagged = await run("classify-tokens", TEXTS[0])
    found = await client.classify_tokens(TEXTS[0])
    (shown,) = answers_of(page)
    assert (tagged.exit_code, tagged.stdout.count("\t")) == (0, 3 * len(found.entities))
    assert [(one["label"], one["start"]) for one in shown["marked"]["spans"]] == [
        (one.label, one.start) for one in found.entities
    ]
    question, context = QUESTIONS[1]
    answered = await run("answer", question, "--context", context, "--top-k", "2")
    best = await client.answer(question, context, top_k=2)
    (shown,) = answers_of(page)
    assert answered.exit_code == 0
    assert [one["label"] for one in shown["classes"]] == [one.text for one in best.answers]
    assert (shown["source"], shown["marked"]["text"]) == (question, context)
    assert {one["kind"] for one in shown["maps"]} == {"self"}


async def test_commands_print_what_the_server_says(
    client: AsyncClient, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`regard classify-tokens`, `answer` and `compare`: a line for each finding, and 1 if an input failed."""
    monkeypatch.setenv("REGARD_SERVER", address)
    picture = tmp_path / "picture.png"
    picture.write_bytes(next(pictures()))

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    tagged = await run("classify-tokens", TEXTS[0], "--attention")
    expected = await client.classify_tokens(TEXTS[0])
    assert tagged.exit_code == 0
    for entity in expected.entities:
        assert f"{entity.label}\t{entity.score:.4f}\t{entity.start}-{entity.end}\t{entity.text}\n" in tagged.stdout
    assert "[CLS]'s attention" in tagged.stdout
    answered = await run("answer", *QUESTIONS[1][:1], "--context", QUESTIONS[1][1], "--priority", "high", "--json")
    found = await client.answer(*QUESTIONS[1])
    assert found.best is not None
    (record,) = [line for line in answered.stdout.splitlines() if line.startswith("{")]  # the server's log is beside it
    assert json.loads(record)["answers"][0]["text"] == found.best.text
    compared = await run("compare", str(picture), "-t", "cat", "-t", " ", "--model", "clip", "--priority", "low")
    assert compared.exit_code == 1
    assert "cat" in compared.stdout
    assert "nothing but white space" in compared.stderr
