"""The playground of models that classify tokens, answer, compare, transcribe and complete: small random ones."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from playwright.sync_api import Page, Request, Route, expect

from regard.cli.demo.server import ServerProcess, serving
from regard.client import AttentionOptions
from regard.v1 import (
    classification_pb2,
    completion_pb2,
    question_answering_pb2,
    similarity_pb2,
    transcription_pb2,
)
from regard_export.package import Options, export

from ..export.checkpoints import save_classifier, save_clip, save_completer  # noqa: TID252
from ..export.speech import RATE, chirp  # noqa: TID252
from ..export.vocabularies import every_byte, word_pieces  # noqa: TID252
from ..unit.report.answers import picture  # noqa: TID252
from .asking import (
    HOSTILE,
    check_command,
    check_looks,
    choose,
    client_of,
    facts,
    fulfill_in_part,
    run_program,
    show_options,
    snippet,
)
from .reading import figures, plane, reading, written


def spoken(seconds: float) -> Any:
    """Return a file of sound."""
    written = io.BytesIO()
    soundfile.write(written, chirp(seconds), RATE, format="WAV")
    return {"name": "it's spoken.wav", "mimeType": "audio/wav", "buffer": written.getvalue()}


MOST_TOKENS = 256
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
SENTENCE = "the cat sat on the mat."
QUESTION = "where was it?"
REQUESTS = {
    "Classify tokens": classification_pb2.ClassifyTokensRequest,
    "Answer": question_answering_pb2.AnswerRequest,
    "Compare": similarity_pb2.CompareRequest,
    "Transcribe": transcription_pb2.StreamTranscribeRequest,
    "Complete": completion_pb2.StreamCompleteRequest,
}
TEXTS = {"Classify tokens": "Text", "Answer": "Context", "Compare": "Texts, one a line", "Complete": "Prompt"}
KINDS = {
    "Compare": ["image encoder self-attention", "text encoder self-attention"],
    "Transcribe": ["cross-attention", "decoder self-attention"],
    "Complete": ["decoder self-attention"],
}
LINES = 'red star\n a cat \n\n"two" rings\n'

PICTURE = {"name": "it's a scene.png", "mimeType": "image/png", "buffer": picture(192, 192)}
FILES = {"Compare": ("Image", PICTURE), "Transcribe": ("Sound", spoken(0.9))}
BROKEN_OFF = "the answer broke off: the server can’t be reached any more"
HEIGHTS = """(canvas) => {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const rows = Array.from({ length: height }, (_, y) => y);
    return Array.from({ length: width }, (_, x) => rows.filter((y) => data[4 * (y * width + x) + 3] > 0).length);
}"""
"""How high the bars of a timeline are, in each column of its pixels."""
WITHOUT_LABELS = """(shown) => {
    const copy = shown.cloneNode(true);
    for (const label of copy.querySelectorAll("small")) label.remove();
    return copy.textContent;
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, whisper: tuple[Path, Path]) -> Iterator[ServerProcess]:
    """Yield a server of a model for each of these tasks, in the place of the demonstration's."""
    at = tmp_path_factory.mktemp("tasks")
    sizes = {"vocab_size": 150, "pad_token_id": 0, "max_position_embeddings": MOST_TOKENS}
    labels = {"num_labels": len(LABELS), "id2label": LABELS, "label2id": {label: at for at, label in LABELS.items()}}
    save_classifier(at / "tagger", "Bert", "TokenClassification", **sizes | labels)
    save_classifier(at / "reader", "Bert", "QuestionAnswering", **sizes)
    for name in ("tagger", "reader"):
        word_pieces(MOST_TOKENS).save_pretrained(at / name)
    save_completer(at / "writer", vocab_size=257, max_position_embeddings=MOST_TOKENS)
    every_byte().save_pretrained(at / "writer")
    save_clip(at / "clip")
    for name in ("tagger", "reader", "clip", "writer"):
        export(at / name, at / "models", Options(name=name))
    shutil.copytree(whisper[1] / "tiny", at / "models" / "tiny")
    with serving(at / "models", at / "log") as running:
        yield running


def ask_task(page: Page, task: str, text: str = SENTENCE) -> None:
    """Choose a task, ask about a text, and wait for the answer."""
    choose(page, task)
    if task == "Answer":
        page.get_by_label("Question").fill(QUESTION)
    if task in TEXTS:
        page.get_by_label(TEXTS[task], exact=True).fill(text)
    if task in FILES:
        page.get_by_label(FILES[task][0], exact=True).set_input_files(FILES[task][1])
    else:
        page.locator(".run").click()
    page.locator(".shown:not(.stale) article").first.wait_for()


def test_every_task_has_its_place(open_playground):
    """There is a task for each model, in the page's order, and each has the fields that it asks for."""
    page = open_playground()
    tasks = page.get_by_role("group", name="Task").get_by_role("button")

    assert tasks.all_inner_texts() == list(REQUESTS)
    for task, fields in zip(
        REQUESTS, (["Text"], ["Question", "Context"], ["Texts, one a line"], [], ["Prompt"]), strict=True
    ):
        choose(page, task)
        assert page.locator(".given .name:visible").all_inner_texts() == fields
        assert [one.is_visible() for one in page.locator(".drop").all()] == [task == "Compare", task == "Transcribe"]
        assert page.locator(".run").inner_text() == task
        kinds = page.get_by_label("Attention").first.locator("option").all_inner_texts()
        assert kinds == KINDS.get(task, ["encoder self-attention"])


def test_a_completion_streams_and_is_looked_at(open_playground, server):
    """The prompt stands before the tokens, and those of the answer attend to both."""
    page = open_playground()
    ask_task(page, "Complete")
    facts(page).wait_for()
    with client_of(server) as client:
        answer = client.complete(SENTENCE, attention=AttentionOptions(), max_new_tokens=40)

    assert page.locator(".live .prompt").inner_text() == SENTENCE
    assert "".join(page.locator(".live .token").all_text_contents()) == answer.text
    assert facts(page).inner_text().startswith(f"{len(SENTENCE)} tokens read · {answer.target_tokens} written")
    page.get_by_role("group", name="Output", exact=True).get_by_role("button").nth(3).hover()
    assert figures(page, "Prompt and output so far") == written(plane(answer, "self", "decoder", 1)[3])
    assert page.locator(".head").count() == 2 * (1 + answer.attention.maps[0].weights.shape[0])


def test_a_completion_is_looked_at_before_its_end(open_playground, server):
    """While tokens still come, the map has a row for each, over prompt and output, and the last is shown."""
    page = open_playground()
    page.route("**/StreamComplete", lambda route: fulfill_in_part(route, events=5))
    choose(page, "Complete")
    page.get_by_label("Prompt").fill(SENTENCE)
    page.locator(".run").click()
    page.locator("article").wait_for()
    with client_of(server) as client:
        answer = client.complete(SENTENCE, attention=AttentionOptions(), max_new_tokens=5)

    expect(page.get_by_role("group", name="Output", exact=True).get_by_role("button")).to_have_count(5)
    assert figures(page, "Prompt and output so far") == written(plane(answer, "self", "decoder", 1)[4])
    assert "".join(page.locator(".live .token").all_text_contents())
    assert page.get_by_role("alert").inner_text() == BROKEN_OFF


def test_a_template_s_special_tokens_are_read_if_one_says_so(open_playground):
    """The end of a text, where it is written, is one token of a templated prompt, and seven of any other."""
    page = open_playground()
    choose(page, "Complete")
    ask_task(page, "Complete", "a<|end|>")
    assert facts(page).inner_text().startswith("8 tokens read")

    show_options(page)
    page.get_by_label("Special tokens").select_option("are read as such")
    page.locator(".run").click()

    expect(facts(page)).to_contain_text("2 tokens read")
    assert "templated=True" in snippet(page, "Python")


def test_entities_are_marked_in_their_text(open_playground, server):
    """The text stands whole, its entities are marked with their labels, and each word's attention can be looked at."""
    page = open_playground()
    ask_task(page, "Classify tokens")
    with client_of(server) as client:
        answer = client.classify_tokens(SENTENCE, attention=AttentionOptions(granularity="word"))

    assert answer.entities
    marks = page.locator("mark")
    assert marks.all_inner_texts() == [f"{one.text}{one.label} {100 * one.score:.1f} %" for one in answer.entities]
    assert page.locator(".marks p").evaluate(WITHOUT_LABELS) == SENTENCE
    page.get_by_role("group", name="Source", exact=True).get_by_role("button").nth(2).hover()
    assert figures(page, "Source") == written(plane(answer, "self", "encoder", 1)[2])


def test_a_question_has_its_answers(open_playground, server):
    """Answers stand in their order, the best is marked in its context, and both texts attend to each other."""
    page = open_playground()
    choose(page, "Answer")
    show_options(page)
    page.get_by_label("Answers").fill("3")
    ask_task(page, "Answer")
    with client_of(server) as client:
        answer = client.answer(QUESTION, SENTENCE, top_k=3, attention=AttentionOptions(granularity="word"))

    assert len(answer.answers) == 3
    assert page.locator(".class-name").all_inner_texts() == [one.text for one in answer.answers]
    assert page.locator("mark").all_inner_texts() == [answer.best.text]
    title = "Question and context"
    page.get_by_role("group", name=title, exact=True).get_by_role("button").nth(1).hover()
    assert figures(page, title) == written(plane(answer, "self", "encoder", 1)[1])
    words = page.get_by_role("group", name=title, exact=True).locator("bdi").all_inner_texts()
    assert "".join(one for one in words if one not in ("[CLS]", "[SEP]")) == (QUESTION + SENTENCE).replace(" ", "")


def test_an_image_is_compared_with_texts(open_playground, server):
    """The likeliest text stands first, and the picture shows where the image's encoder looked, or the text its own."""
    page = open_playground()
    ask_task(page, "Compare", LINES)
    texts = [line.strip() for line in LINES.splitlines() if line.strip()]
    options = [AttentionOptions(stacks=[stack]) for stack in ("image_encoder", "text_encoder")]
    with client_of(server) as client:
        looks, reads = (client.compare([PICTURE["buffer"]], texts, attention=one) for one in options)
    ranked = sorted(looks.images[0].scores, key=lambda score: -score.logit)

    assert page.locator(".class-name").all_inner_texts() == [texts[one.text_index] for one in ranked]
    assert page.locator(".probability").all_inner_texts() == [f"{100 * one.probability:.1f} %" for one in ranked]
    assert page.locator(".picture img").count() == 1
    row = plane(looks.images[0], "self", "image_encoder", 1)[0]
    assert f"{row.max():.3f}" in reading(page)

    page.get_by_label("Attention").first.select_option("text encoder self-attention")
    show_options(page)
    page.get_by_label("Grain").select_option("tokens")
    page.locator(".run").click()
    page.get_by_role("group", name="Source", exact=True).wait_for()
    row = plane(reads.texts[ranked[0].text_index], "self", "text_encoder", 1)[0]
    assert figures(page, "Source") == written(row)


def test_what_fails_of_a_comparison_is_told_at_its_texts(open_playground):
    """A line that is too long is named below the texts, and one without words is no text at all."""
    page = open_playground()
    choose(page, "Compare")
    page.get_by_label(TEXTS["Compare"]).fill("cat\n" + "many words " * 100)
    page.get_by_label("Image", exact=True).set_input_files(PICTURE)
    expect(page.locator("[data-field=text] .problem")).to_contain_text("texts[1]")

    page.get_by_label(TEXTS["Compare"]).fill(" \n")
    page.locator(".run").click()
    expect(page.locator("[data-field=text] .problem")).to_have_text("type texts first, one a line")


def test_a_sound_is_looked_at_along_its_time(open_playground, server):
    """A window has a timeline, and what a token attends to most is named by when it is, as the client has it."""
    page = open_playground()
    ask_task(page, "Transcribe")
    with client_of(server) as client:
        heard = client.transcribe(FILES["Transcribe"][1]["buffer"], attention=AttentionOptions(reduction="mean"))
    (window,) = heard.windows
    row = plane(window, "cross", "decoder", 1)[1]
    sounding = row[[not one.special for one in window.attention.maps[0].keys]]

    assert "".join(page.locator(".live .token").all_text_contents()) == heard.text
    page.get_by_role("group", name="Output", exact=True).get_by_role("button").nth(1).hover()
    best = int(row.argmax())
    frames = window.attention.maps[0].key_frames
    assert f"{frames.start_s + best * frames.seconds_per_frame:.2f} s {row[best]:.3f}" in reading(page)
    assert page.locator(".timeline").get_attribute("aria-label").startswith(f"Sound: {len(sounding)} frames")
    bars = page.locator(".timeline canvas").evaluate(HEIGHTS)
    assert max(bars) == 96
    tallest = bars.index(96) / len(bars)
    assert abs(tallest - int(sounding.argmax()) / len(sounding)) < 2 / len(sounding)


def test_the_timeline_is_walked(open_playground):
    """Arrow keys move over the frames, and the words are shaded by what they give to the one that is looked at."""
    page = open_playground()
    ask_task(page, "Transcribe")
    page.keyboard.press("Tab")
    page.locator(".timeline").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".reading")).to_contain_text("attends to 0.02 s")
    page.keyboard.press("End")
    expect(page.locator(".reading")).to_contain_text("attends to 0.88 s")


def test_every_window_of_a_sound_is_shown(open_playground):
    """A sound of several windows has a part for each, which says when it was."""
    page = open_playground()
    choose(page, "Transcribe")
    page.get_by_label("Sound", exact=True).set_input_files(spoken(2.5))
    facts(page).wait_for()

    times = ["from 0.0 to 1.0 s", "from 1.0 to 2.0 s", "from 2.0 to 2.5 s"]
    assert page.locator("article h2").all_inner_texts() == [f"Transcription {time}" for time in times]
    assert [one.get_attribute("aria-label")[:17] for one in page.locator(".timeline").all()] == [
        "Sound: 50 frames;",
        "Sound: 50 frames;",
        "Sound: 25 frames;",
    ]


def test_what_is_missing_is_asked_for_where_it_is(open_playground):
    """Without a question, and then without a context, nothing is sent, and the field says what it needs."""
    page = open_playground()
    choose(page, "Answer")
    page.locator(".run").click()
    expect(page.locator("[data-field=question] .problem")).to_have_text("type a question first")

    page.get_by_label("Question").fill(QUESTION)
    page.locator(".run").click()
    expect(page.locator("[data-field=text] .problem")).to_have_text("type a context first")


@pytest.mark.parametrize("task", REQUESTS)
def test_a_package_without_attention_answers(open_playground, task):
    """What a model says is shown, and that its package gives no attention, of which nothing is asked."""
    page = open_playground()
    page.route("**/ListModels", without_taps)
    page.reload()
    page.locator(".tasks button").first.wait_for()
    with page.expect_request("**/playground/**Service/*") as sent:
        ask_task(page, task, LINES if task == "Compare" else SENTENCE)

    assert "attention" not in json.loads(sent.value.post_data)
    assert page.locator(".shown .note").inner_text() == "This model’s package gives no attention."
    said = {"Classify tokens": "mark", "Answer": "mark", "Compare": ".class-name"}.get(task, ".live .token")
    assert page.locator(said).count() > 0
    assert page.get_by_role("alert").is_hidden()


def without_taps(route: Route) -> None:
    """Answer a request for the models as if their packages gave no attention."""
    whole = route.fetch()
    listed = whole.json()
    for model in listed["models"]:
        model["taps"] = []
    route.fulfill(response=whole, body=json.dumps(listed) + "\n")


@pytest.mark.parametrize("task", [task for task in REQUESTS if task != "Transcribe"])
def test_examples_are_answered(open_playground, task):
    """A click on each example asks it."""
    page = open_playground()
    choose(page, task)
    examples = page.get_by_role("group", name="Examples").get_by_role("button")
    assert examples.count() == 3
    for place in range(3):
        examples.nth(place).click()
        page.locator(".shown:not(.stale) article").wait_for()
        assert page.get_by_role("alert").is_hidden()


@pytest.mark.parametrize("task", REQUESTS)
def test_what_is_copied_sends_what_the_page_sends(open_playground, tmp_path, task):
    """The command gives grpcurl the page's message, and the program prints the page's answer."""
    page = open_playground()
    for _, file in FILES.values():
        (tmp_path / file["name"]).write_bytes(file["buffer"])
    sent = send_something(page, task)
    check_command(snippet(page, "grpcurl"), sent, REQUESTS[task], tmp_path)
    printed = run_program(snippet(page, "Python"), tmp_path)

    if task == "Transcribe":
        assert printed == "".join(page.locator(".live .token").all_text_contents()) + "\n"
    elif task == "Compare":
        assert "TextScore(text_index=0" in printed
    elif task == "Complete":
        assert printed == "".join(page.locator(".live .token").all_text_contents()) + "\n"
    else:
        shown = page.locator("mark").first.evaluate(WITHOUT_LABELS)
        assert repr(shown) in printed


def send_something(page: Page, task: str) -> Request:
    """Ask about a hostile text with options, and return what was sent."""
    choose(page, task)
    show_options(page)
    page.locator("[data-field='attention.reduction'] select").select_option("MEAN")
    if task in ("Answer", "Complete"):
        page.get_by_label("Most tokens").fill("7")
    with page.expect_request("**/playground/**") as sent:
        ask_task(page, task, LINES if task == "Compare" else HOSTILE)
    return sent.value


@pytest.mark.parametrize("task", TEXTS)
def test_hostile_text_is_text(open_playground, task):
    """Markup in a text makes no element, wherever the text stands."""
    page = open_playground()
    ask_task(page, task, "<b>a</b>\n<img src=x>" if task == "Compare" else HOSTILE)

    assert page.locator("main img:not(.picture img), main b").count() == 0


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("task", REQUESTS)
def test_it_looks_well(open_playground, task, width):
    """No text is faint in either theme, nothing is wider than the window, and all that can be used has a name."""
    page = open_playground(width=width, motion="reduce")
    ask_task(page, task, LINES if task == "Compare" else SENTENCE)
    show_options(page)
    check_looks(page, f"{task.lower().replace(' ', '-')}-{width}")
