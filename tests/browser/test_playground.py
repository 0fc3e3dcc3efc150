from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from regard.client import AttentionOptions
from regard.v1 import caption_pb2, classification_pb2, translation_pb2

from ..unit.report.answers import picture  # noqa: TID252
from .asking import (
    HOSTILE,
    ask,
    ask_example,
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
from .reading import figures, opacity, plane, reading, word, written

SENTENCE = "The old house is near the station."
UTTERANCE = "do i need a visa for my trip to india"
HEBREW = "הבית הישן (ליד התחנה)."
REQUESTS = {
    "Translate": translation_pb2.StreamTranslateRequest,
    "Caption": caption_pb2.StreamCaptionRequest,
    "Classify": classification_pb2.ClassifyRequest,
}
HOLD_STREAM = """() => {
    const [fetched, encoder] = [fetch, new TextEncoder()];
    const held = Promise.withResolvers();
    window.passOn = async (count) => (await held.promise)(count);
    window.fetch = async (url, asked) => {
        const lines = (await (await fetched(url, asked)).text()).split(/(?<=\\n)/);
        const start = (stream) => held.resolve((count) => {
            for (const line of lines.splice(0, count)) stream.enqueue(encoder.encode(line));
            if (!lines.length) stream.close();
        });
        return new Response(new ReadableStream({ start }));
    };
}"""
"""Holds the lines of the next answer back, to pass some on at a time."""
TWO_FRAMES = "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"


def test_a_translation_streams_and_is_looked_at(open_playground, server):
    """Tokens appear, and those of the whole answer bear the weights that the client gets."""
    page = open_playground()
    ask(page, SENTENCE)
    facts(page).wait_for()
    with client_of(server) as client:
        answer = client.translate(SENTENCE, attention=AttentionOptions())

    tokens = page.locator(".live .token")
    assert "".join(tokens.all_text_contents()) == answer.text
    assert tokens.count() == answer.target_tokens
    page.get_by_role("group", name="Output", exact=True).get_by_role("button").nth(2).hover()
    assert figures(page, "Source") == written(plane(answer, "cross", "decoder", 1)[2])
    assert page.locator(".head").count() == 2 * (1 + 4)


@pytest.mark.parametrize("task", ["Translate", "Caption"])
def test_what_has_come_is_looked_at_before_the_end(open_playground, server, task):
    """While tokens still come, the map has a row for each that is there, and the last one's is shown."""
    page = open_playground()
    page.route("**/Stream*", lambda route: fulfill_in_part(route, events=5))
    choose(page, task)
    page.get_by_role("group", name="Examples").get_by_role("button").first.click()
    page.locator("article").wait_for()
    with client_of(server) as client:
        if task == "Translate":
            given = page.get_by_label("Text", exact=True).input_value()
            answer = client.translate(given, attention=AttentionOptions())
        else:
            image = page.locator("[data-field=image] img").get_attribute("src").partition(",")[2]
            answer = client.caption(b64decode(image), attention=AttentionOptions())

    expect(page.locator(".live .token")).to_have_count(5)
    expect(page.get_by_role("group", name="Output", exact=True).get_by_role("button")).to_have_count(5)
    row = plane(answer, "cross", "decoder", 1)[4]
    if task == "Translate":
        assert figures(page, "Source") == written(row)
        assert page.locator(".rows .label").count() == 5
    else:
        assert f"{row.max():.3f}" in reading(page)


def test_who_looks_while_tokens_come_is_left_to_it(open_playground):
    """A head that is chosen before the end stays chosen, and its button keeps the focus, until the end and after it."""
    page = open_playground()
    page.evaluate(HOLD_STREAM)
    ask(page, SENTENCE)
    page.evaluate("passOn(3)")
    chosen = page.get_by_role("button", name="layer 1, head 2")
    chosen.focus()
    chosen.press("Enter")
    page.evaluate("passOn(2)")
    expect(page.locator(".live .token")).to_have_count(5)
    page.evaluate(TWO_FRAMES)

    expect(chosen).to_be_focused()
    page.evaluate("passOn(Infinity)")
    facts(page).wait_for()
    expect(chosen).to_have_attribute("aria-pressed", "true")
    expect(chosen).to_be_focused()


def test_a_classification_has_its_bars(open_playground, server):
    """The classes are those that the client gets, with their probabilities."""
    page = open_playground()
    choose(page, "Classify")
    ask(page, UTTERANCE)
    page.locator(".classes").wait_for()
    with client_of(server) as client:
        answer = client.classify(UTTERANCE)

    assert page.locator(".class-name").all_inner_texts() == [one.label for one in answer.classes]
    assert page.locator(".probability").first.inner_text() == f"{100 * answer.classes[0].probability:.1f} %"


def test_a_chosen_image_is_captioned(open_playground, server, tmp_path):
    """The words of a caption light the patches of the file that was chosen."""
    image = picture(192, 192)
    page = open_playground()
    choose(page, "Caption")
    page.get_by_label("Image", exact=True).set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": image})
    facts(page).wait_for()
    with client_of(server) as client:
        answer = client.caption(image, attention=AttentionOptions())

    assert "".join(page.locator(".live .token").all_text_contents()) == answer.text
    page.get_by_role("button", name="Show patches").click()
    word(page, "Output", answer.text.split()[0]).hover()
    one = answer.attention.maps[-1]
    row = plane(answer, "cross", "decoder", 1)[0][[not segment.special for segment in one.keys]]
    columns, rows = one.key_grid.columns, one.key_grid.rows
    peak = int(row.argmax())
    assert opacity(page, (peak % columns + 0.5) / columns, (peak // columns + 0.5) / rows) == pytest.approx(0, abs=0.02)


def test_an_image_can_be_dropped(open_playground):
    """A file that is dropped is shown and asked about at once."""
    page = open_playground()
    choose(page, "Caption")
    held = page.evaluate_handle(
        """(bytes) => {
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(bytes)], "dropped scene.png", { type: "image/png" }));
            return held;
        }""",
        list(picture(192, 192)),
    )
    page.locator("[data-field=image] .drop").dispatch_event("drop", {"dataTransfer": held})

    facts(page).wait_for()
    assert page.get_by_alt_text("the image to ask about").is_visible()
    assert "'dropped scene.png'" in snippet(page, "grpcurl")


def test_another_layer_and_kind_is_asked_for(open_playground):
    """The options decide what the server sends: one layer, its heads' mean, of the encoder, token by token."""
    page = open_playground()
    show_options(page)
    page.locator("[data-field='attention.kinds'] select").select_option(label="encoder self-attention")
    page.locator("[data-field='attention.layers'] select").select_option("1")
    page.locator("[data-field='attention.reduction'] select").select_option("MEAN")
    page.locator("[data-field='attention.granularity'] select").select_option("TOKEN")
    ask(page, SENTENCE)
    facts(page).wait_for()

    assert page.locator(".head").count() == 1
    assert page.get_by_role("button", name="layer 1, mean of heads").is_visible()
    assert reading(page)
    assert "token" in page.locator("article footer").inner_text()


def test_alignment_heads_leave_no_other_choice(open_playground):
    """The heads that tell which word translates which are the package's: kinds, layers and heads can't be chosen."""
    page = open_playground()
    show_options(page)
    page.locator("[data-field='attention.reduction'] select").select_option("ALIGNMENT_HEADS")
    ask(page, SENTENCE)
    facts(page).wait_for()

    assert page.locator("[data-field='attention.layers'] select").is_disabled()
    assert page.locator(".head").count() == 1


def test_another_model_is_asked_in_the_same_way(open_playground):
    """Choosing another model leaves the options as they are, where it has them, and the focus on the choice."""
    page = open_playground()
    page.route("**/ListModels", list_twin)
    page.reload()
    show_options(page)
    page.get_by_label("Beams").fill("3")
    page.locator("[data-field='attention.layers'] select").select_option("1")
    model = page.locator("[data-field=model_name] select")
    model.focus()
    model.select_option(label="twin")

    expect(model).to_be_focused()
    assert page.get_by_label("Beams").input_value() == "3"
    assert page.locator("[data-field='attention.layers'] select").input_value() == ""
    assert page.locator("[data-field='attention.layers'] option").all_inner_texts() == ["all", "0"]


def list_twin(route: Route) -> None:
    """List one model more, a translator with the first layer of the first alone."""
    listed = route.fetch().json()
    (first,) = (model for model in listed["models"] if model["task"] == "TASK_TRANSLATION")
    taps = [tap for tap in first["taps"] if tap["layer"] == 0]
    listed["models"].append(first | {"name": "twin", "taps": taps})
    route.fulfill(body=json.dumps(listed) + "\n")


def test_a_refusal_stands_beside_its_field(open_playground):
    """What the server refuses is said where it was given, and goes once it is changed."""
    page = open_playground()
    show_options(page)
    beams = page.get_by_label("Beams")
    beams.fill("5000")
    ask(page, SENTENCE)

    problem = page.locator("[data-field='generation.num_beams'] .problem")
    expect(problem).to_contain_text("generation.num_beams is 5000")
    expect(beams).to_have_attribute("aria-invalid", "true")
    expect(beams).to_have_accessible_name("Beams")
    expect(beams).to_have_accessible_description(problem.inner_text())
    beams.fill("4")
    expect(problem).to_have_count(0)
    expect(page.get_by_role("alert")).not_to_be_visible()


def test_a_refusal_is_forgotten_with_its_task(open_playground):
    """What was wrong with one task's options keeps nobody from another task."""
    page = open_playground()
    show_options(page)
    page.get_by_label("Beams").fill("5000")
    ask(page, SENTENCE)
    page.locator("[data-field='generation.num_beams'] .problem").wait_for()

    ask_example(page, "Classify")

    assert page.locator(".classes li").count() == 5
    expect(page.get_by_role("alert")).not_to_be_visible()


def test_a_failed_input_is_told_at_the_input(open_playground):
    """A failure of the stream itself, such as a text without words that is too long, stands below the text."""
    page = open_playground()
    ask(page, "word " * 600)

    expect(page.locator("[data-field=text] .problem")).to_contain_text("texts[0]")
    expect(page.locator("[data-field=text] textarea")).to_have_accessible_name("Text")


def test_a_refusal_is_seen_in_another_task(open_playground):
    """What is refused after another task was chosen is said there, though the field isn't."""
    page, asked = open_playground(), []
    page.route("**/StreamTranslate", lambda route: asked.append(route))
    with page.expect_request("**/StreamTranslate"):
        ask(page, SENTENCE)
    choose(page, "Caption")
    (route,) = asked
    route.fulfill(body=json.dumps({"error": {"code": "INVALID_ARGUMENT", "message": "texts[0] is too long"}}) + "\n")

    expect(page.get_by_role("alert")).to_have_text("texts[0] is too long")
    expect(page.locator(".run")).to_have_text("Caption")


def test_a_refusal_is_in_view(open_playground):
    """On a phone, whose page has gone on to the answer that was asked for, it comes back to what was refused."""
    page = open_playground(width=360, height=640)
    ask(page, "word " * 600)

    expect(page.get_by_role("alert")).to_be_in_viewport(ratio=1)


def test_nothing_is_sent_without_an_input(open_playground):
    """An empty form asks for its text or image, and the server for nothing."""
    page, sent = open_playground(), []
    page.route("**/playground/**", lambda route: sent.append(route.request.url))
    page.locator(".run").click()
    expect(page.locator("[data-field=text] .problem")).to_have_text("type a text first")
    choose(page, "Caption")
    page.locator(".run").click()

    expect(page.locator("[data-field=image] .problem")).to_have_text("give an image first")
    assert sent == []


def test_what_runs_can_be_stopped(open_playground):
    """While an answer is awaited the button stops it, and nothing is left of the request."""
    page = open_playground()
    page.route("**/StreamTranslate", lambda route: None)
    ask(page, SENTENCE)
    expect(page.locator(".run")).to_have_text("Stop")

    page.locator(".run").click()

    expect(page.locator(".run")).to_have_text("Translate")
    expect(page.get_by_role("alert")).not_to_be_visible()


def test_a_server_out_of_reach_is_said(open_playground):
    """A server that has gone is a sentence, and the form stays as it is."""
    page = open_playground()
    page.route("**/StreamTranslate", lambda route: route.abort())
    ask(page, SENTENCE)

    expect(page.get_by_role("alert")).to_have_text("the server can’t be reached")
    assert page.get_by_label("Text", exact=True).input_value() == SENTENCE


def test_an_answer_that_breaks_off_is_said(open_playground):
    """Where the connection ends in the middle of a stream, what came stays, and is not taken for the whole."""
    page = open_playground()
    page.route("**/StreamTranslate", lambda route: fulfill_in_part(route, events=3))
    ask(page, SENTENCE)

    expect(page.get_by_role("alert")).to_have_text("the answer broke off: the server can’t be reached any more")
    expect(page.locator(".live .token")).to_have_count(3)
    expect(page.locator(".run")).to_have_text("Translate")


def test_an_answer_of_something_else_is_said(open_playground):
    """What a proxy answers in the place of a server is no answer, and is named by its status."""
    page = open_playground()
    page.route("**/StreamTranslate", lambda route: route.fulfill(status=502, body="<html>\nBad gateway"))
    ask(page, SENTENCE)

    expect(page.get_by_role("alert")).to_have_text("the server’s answer is 502 Bad Gateway")


def test_without_models_nothing_can_be_asked(open_playground):
    """A page that never had the server's models says why, and asking does nothing."""
    page = open_playground()
    page.route("**/ListModels", lambda route: route.abort())
    page.reload()

    expect(page.get_by_role("alert")).to_have_text("the server can’t be reached")
    expect(page.locator(".run")).to_be_disabled()
    page.locator(".composer").evaluate("(form) => form.requestSubmit()")


@pytest.mark.parametrize("task", REQUESTS)
def test_the_command_sends_what_the_page_sends(open_playground, tmp_path, task):
    """Run by a shell, the command gives grpcurl the message that the page sent, whatever the text holds."""
    page = open_playground()
    sent = send_something(page, task, tmp_path)
    check_command(snippet(page, "grpcurl"), sent, REQUESTS[task], tmp_path)


@pytest.mark.parametrize("task", REQUESTS)
def test_the_program_sends_what_the_page_sends(open_playground, server, tmp_path, task):
    """Run as it stands, the Python program gets the answer that the page shows."""
    page = open_playground()
    send_something(page, task, tmp_path)
    printed = run_program(snippet(page, "Python"), tmp_path)

    if task == "Classify":
        assert page.locator(".class-name").first.inner_text() in printed
    else:
        assert printed == "".join(page.locator(".live .token").all_text_contents()) + "\n"


def send_something(page: Page, task: str, directory: Path) -> Request:
    """Ask for something with options, and return what was sent; an image lies in `directory` too."""
    choose(page, task)
    show_options(page)
    page.locator("[data-field='attention.reduction'] select").select_option("MEAN")
    if task == "Classify":
        page.get_by_label("Classes").fill("3")
    else:
        page.get_by_label("Beams").fill("2")
        page.get_by_label("Most tokens").fill("12")
    with page.expect_request("**/playground/**") as sent:
        if task == "Caption":
            file = directory / "it's a scene.png"
            file.write_bytes(picture(192, 192))
            page.get_by_label("Image", exact=True).set_input_files(file)
        else:
            ask(page, HOSTILE)
    facts(page).wait_for()
    return sent.value


def test_hostile_text_is_text(open_playground):
    """Markup in a text or in an answer is shown as it was written and makes no element."""
    page = open_playground()
    ask(page, HOSTILE)
    facts(page).wait_for()

    assert page.locator("main img, main b").count() == 0
    assert "</script><img" in page.get_by_label("Text", exact=True).input_value()


def test_an_empty_output_is_said(open_playground):
    """An answer without a word is told as such: there is nothing to underline."""
    page = open_playground()
    timing = {"queue_s": 0.0, "encode_s": 0.0, "decode_s": 0.0}
    last = {"input_index": 0, "translation": {"text": "", "source_tokens": 9, "target_tokens": 1, "timing": timing}}
    page.route("**/StreamTranslate", lambda route: route.fulfill(body=json.dumps(last) + "\n"))
    ask(page, SENTENCE)

    expect(facts(page)).to_have_text("9 tokens read · 1 written · an empty output · 0.0 ms")


def test_text_is_written_from_its_own_side(open_playground):
    """What is typed and what comes back run from right to left where their letters do."""
    page = open_playground()
    direction = "(one) => getComputedStyle(one).direction"
    text, output = page.get_by_label("Text", exact=True), page.locator(".live p").first
    delta = {"input_index": 0, "delta": {"text": HEBREW, "log_probability": -0.1}}
    page.route("**/StreamTranslate", lambda route: route.fulfill(body=json.dumps(delta) + "\n"))
    assert [text.evaluate(direction), output.evaluate(direction)] == ["ltr", "ltr"]

    ask(page, HEBREW)
    expect(output).to_have_text(HEBREW)

    assert [text.evaluate(direction), output.evaluate(direction)] == ["rtl", "rtl"]


def test_all_can_be_done_with_the_keyboard(open_playground):
    """Tab reaches tasks, text, options and words; arrows walk; Ctrl and Enter ask."""
    page = open_playground()
    page.get_by_role("button", name="Translate").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type(UTTERANCE)
    page.keyboard.press("Control+Enter")
    page.locator("article").wait_for()
    assert page.locator("article h2").inner_text() == "Classification"

    word(page, "Source", "visa").focus()
    assert reading(page).startswith("visa attends to")
    page.keyboard.press("ArrowLeft")
    assert reading(page).startswith("a attends to")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("task", REQUESTS)
def test_it_looks_well(open_playground, task, width):
    """No text is faint in either theme, nothing is wider than the window, and all that can be used has a name."""
    page = open_playground(width=width, motion="reduce")
    ask_example(page, task)
    show_options(page)
    check_looks(page, f"{task.lower()}-{width}")
