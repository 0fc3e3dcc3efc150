from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys

import grpc
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry, Counter
from typer.main import get_command
from typer.testing import CliRunner

from regard import __version__
from regard.cli import main
from regard.cli.app import app
from regard.cli.attention import ATTENTION
from regard.cli.screen import streamed_line
from regard.cli.search import FLAGS
from regard.client import AttentionOptions, Client, GenerationOptions, Model, Tap
from regard.rpc.http import HttpServer, make_app
from regard.v1 import generation_pb2, intervention_pb2, priority_pb2

from .conftest import png


@pytest.fixture
def run(server, monkeypatch, capsys):
    """Return a function that runs `regard ARGUMENTS` on the canned server: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("REGARD_SERVER", server.target)

    def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regard", *arguments])
        opened = io.TextIOWrapper(io.BytesIO(stdin or b""), "utf-8")
        opened.isatty = lambda: stdin is None
        monkeypatch.setattr(sys, "stdin", opened)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def test_version(run):
    """The version is that of the distribution."""
    assert run("--version") == (0, f"regard {__version__}\n", "")


@pytest.mark.parametrize("command", ["translate", "classify", "models"])
def test_help_has_examples(run, command):
    """Every command's help shows how it is used."""
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"regard {command}" in out.partition("Examples")[2]


def commands(group, *above):
    """Return the words that name each command of a group, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield pytest.param([*above, name], command, id=" ".join([*above, name]))


@pytest.mark.parametrize(("names", "command"), [*commands(get_command(app))])
def test_help_cuts_no_word(names, command):
    """On a screen of 80 columns, each option, value, choice and variable is whole."""
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*names, "--help"]).stdout
    context = command.make_context(names[-1], [], resilient_parsing=True)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for option in command.params:
        wanted = " ".join(option.get_help_record(context)).replace("|", " | ").replace("\\[", "[")
        assert set(wanted.split()) <= set(shown.split())


@pytest.mark.parametrize("names", [[], ["explain"]])
def test_help_of_a_group_cuts_no_word(names):
    """The names of commands and what they do are whole as well."""
    assert "…" not in CliRunner(env={"COLUMNS": "80"}).invoke(app, [*names, "--help"]).stdout


def test_translation_alone_on_stdout(run):
    """A translated text is all that stdout holds."""
    assert run("translate", "they grow oranges") == (0, "THEY GROW ORANGES\n", "")


def test_attention_is_drawn_as_a_grid(run):
    """With --attention, target words stand beside rows, source words above columns, and a caption below."""
    code, out, _ = run("translate", "they grow", "--attention")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "THEY GROW"
    assert lines[2].split() == ["they", "grow", "</s>"]
    assert [line.split()[0] for line in lines[3:6]] == ["THEY", "GROW", "</s>"]
    assert "67" in lines[3]
    assert lines[6] == "% of each word's cross-attention · decoder layer 1, mean of 3 heads"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--attention"], {}),
        (["--attention-layer", "0", "--attention-layer", "1"], {"layers": [0, 1]}),
        (["--attention-head", "2"], {"heads": [2]}),
        (["--attention-reduction", "rollout"], {"reduction": 5}),
        (["--attention-granularity", "patch"], {"granularity": 3}),
        (["--attention-kind", "self", "--attention-stack", "decoder"], {"kinds": [1], "stacks": [2]}),
        (["--attention-prompt"], {"prompt": True}),
        (["--attention-top-k", "3"], {"top_k": 3}),
        (["--attention-encoding", "uint8"], {"encoding": 3}),
        (["--attention-max-bytes", "4096"], {"max_bytes": 4096}),
        (["--attention-weighting", "value_norm"], {"weighting": 2}),
    ],
)
def test_attention_options_travel(run, server, arguments, asked):
    """Any option of attention asks for it, by words and the mean of heads, exactly, unless it says otherwise."""
    assert run("translate", "hi", *arguments)[0] == 0
    sent = {field.name: value for field, value in server.requests[0].attention.ListFields()}
    assert sent == {"reduction": 2, "granularity": 2, "encoding": 1, "weighting": 1} | asked


def test_every_option_of_attention_has_a_flag():
    """What the client can ask for the command line can, one by one."""
    assert {name.removeprefix("attention_") for name in ATTENTION.flags} - {"attention"} == {
        field.name for field in dataclasses.fields(AttentionOptions)
    }


HIS = {"keys": {"spans": [{"start": 0, "end": 2}, {"start": 3, "end": 5}]}}


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (["--knock-out", "3.1"], [{"layers": [3], "heads": [1], "knock_out": {}}]),
        (["--knock-out", "decoder.self.0"], [{"kinds": [1], "stacks": [2], "layers": [0], "knock_out": {}}]),
        (["--window", "0"], [{"kinds": [1], "stacks": [1], "local_window": {}}]),
        (["--ban", "hi"], [{"kinds": [1], "stacks": [1], "ban": HIS}, {"kinds": [2], "ban": HIS}]),
    ],
)
def test_what_is_changed_in_the_model_travels(run, server, arguments, sent):
    """Heads, windows, and words wherever they stand, for encoder and decoder, reach the server."""
    assert run("translate", "hi hi", *arguments)[0] == 0
    assert list(server.requests[0].interventions) == [intervention_pb2.Intervention(**one) for one in sent]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--knock-out", "first"], "name a layer and a head"),
        (["--knock-out", "encoder.other.0.1"], "kinds are self, cross"),
        (["--ban", "dog"], "the text has no such words"),
        (["--window", "-1"], "a token sees at least itself"),
    ],
)
def test_a_change_that_means_nothing_is_refused(run, arguments, problem):
    """Nothing is sent, and the error says what could be meant."""
    code, _, err = run("classify", "hi", *arguments)
    assert code == 2
    assert problem in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--max-new-tokens", "20"], "max_new_tokens", 20),
        (["--min-new-tokens", "0"], "min_new_tokens", 0),
        (["--num-beams", "4"], "num_beams", 4),
        (["--length-penalty", "0"], "length_penalty", 0),
        (["--early-stopping", "never"], "early_stopping", generation_pb2.EARLY_STOPPING_NEVER),
        (["--num-return-sequences", "2"], "num_return_sequences", 2),
        (["--do-sample"], "do_sample", True),
        (["--no-do-sample"], "do_sample", False),
        (["--temperature", "0.75"], "temperature", 0.75),
        (["--top-k", "0"], "top_k", 0),
        (["--top-p", "0.875"], "top_p", 0.875),
        (["--min-p", "0.25"], "min_p", 0.25),
        (["--seed", "0"], "seed", 0),
        (["--repetition-penalty", "1.5"], "repetition_penalty", 1.5),
        (["--no-repeat-ngram-size", "3"], "no_repeat_ngram_size", 3),
        (["--bad-word", "ho", "--bad-word", "he"], "bad_words", ["ho", "he"]),
        (["--target-language", "fr_XX"], "target_language", "fr_XX"),
        (["--target-prefix", "HI"], "target_prefix", "HI"),
        (["--stop", ".", "--stop", "!"], "stop_strings", [".", "!"]),
        (["--alternatives-position", "0"], "alternatives_position", 0),
        (["--top-logprobs", "3"], "top_logprobs", 3),
        (["--no-return-scores"], "return_scores", False),
    ],
)
def test_search_options_travel(run, server, arguments, name, value):
    """Each option of a search reaches the server under the client's name for it, and alone."""
    assert run("translate", "hi", *arguments)[0] == 0
    sent = server.requests[0].generation.ListFields()
    assert [(field.name, value) for field, value in sent] == [(name, value)]


def test_every_option_of_a_search_has_a_flag():
    """What the client can ask for the command line can, but for lists of tokens."""
    flagless = {"bad_words_ids", "suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "token_logprobs"}
    assert FLAGS.keys() == GenerationOptions.__annotations__.keys() - flagless


def test_sequences_are_printed_one_a_line(run):
    """The best comes first."""
    assert run("translate", "hi", "--num-return-sequences", "3") == (0, "HI\nHI!\nHI!!\n", "")


def test_model_by_name_and_version(run, server):
    """--model takes NAME and NAME/VERSION."""
    run("translate", "hi", "--model", "en-fr/3")
    assert (server.requests[0].model_name, server.requests[0].model_version) == ("en-fr", "3")


def test_lines_keep_their_numbers(run, tmp_path):
    """Each line is answered on its own line; blank and failed ones stay blank, and failures are told and counted."""
    file = tmp_path / "english.txt"
    file.write_bytes("one\r\n\n  \nbad\nété\n".encode() + b"\xff\xfe\nlast")
    code, out, err = run("translate", "--file", str(file))
    assert code == 1
    assert out.splitlines() == ["ONE", "", "", "", "ÉTÉ", "", "LAST"]
    assert err.splitlines() == [
        "error: line 4: the text is bad; send a better one (INVALID_ARGUMENT)",
        "error: line 6: not UTF-8 at byte 0: convert it, for example with `iconv -t utf-8` (INVALID_ARGUMENT)",
    ]


def test_what_follows_a_line_is_one_line(run):
    """A completion of several lines is one for a line of a file, and as it came for one prompt and in JSON."""
    assert run("complete", stdin=b"yes\n\nno\n") == (0, "yes again\n\nno again\n", "")
    assert run("complete", "yes", "--no-stream") == (0, " yes\n\nagain \n", "")
    assert json.loads(run("complete", "--json", stdin=b"yes\n")[1])["text"] == " yes\n\nagain "


def test_lines_from_stdin_as_json(run):
    """--json prints one object for each line, null for a blank one, and nothing else."""
    code, out, err = run("translate", "--json", stdin="\ufeffone\n\nbad\n".encode())
    first, blank, failed = map(json.loads, out.splitlines())
    assert code == 1
    assert (first["source"], first["text"], first["attention"]) == ("one", "ONE", None)
    assert first["model"] == {"name": "shout", "version": "1"}
    assert blank is None
    assert failed == {
        "source": "bad",
        "failure": {
            "code": 3,
            "code_name": "INVALID_ARGUMENT",
            "message": "texts[1] is bad; send a better one",
            "field": "texts[1]",
        },
    }
    assert err.count("\n") == 1


def test_many_lines_stay_in_order(run):
    """Lines of many requests come back in their order."""
    lines = [f"line {number}" for number in range(150)]
    code, out, _ = run("translate", stdin="\n".join(lines).encode())
    assert (code, out.splitlines()) == (0, [line.upper() for line in lines])


@pytest.mark.parametrize(
    ("arguments", "requests"),
    [
        (["translate"], 1),
        *((["translate", flag], 3) for flag in ("--attention", "--report=page.html")),
        *((["classify", flag], 3) for flag in ("--attention", "--report=page.html")),
        (["classify-tokens", "--attention"], 3),
        (["complete", "--attention"], 3),
    ],
)
def test_lines_with_attention_have_requests_of_their_own(run, server, monkeypatch, tmp_path, arguments, requests):
    """Lines of one request would share the bytes of attention that it may come to."""
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, stdin=b"one\ntwo\nthree\n")[0] == 0
    assert len(server.requests) == requests


@pytest.mark.parametrize("command", ["translate", "classify", "classify-tokens"])
def test_commands_say_how_urgent_they_are(run, server, command):
    """--priority goes with the request."""
    assert run(command, "hello", "--priority", "high")[0] == 0
    assert server.requests[-1].priority == priority_pb2.PRIORITY_HIGH


def test_json_holds_axes_once_and_weights_by_map(run):
    """A record's attention names its axes once and gives each map's weights as nested lists."""
    _, out, _ = run("translate", "they grow", "--attention", "--json")
    attention = json.loads(out)["attention"]
    assert [word["text"] for word in attention["axes"]["source"]] == ["they", "grow", "</s>"]
    assert [one["layer"] for one in attention["maps"]] == [0, 1]
    assert attention["maps"][0]["weights"][0][0] == [0.6666667, 0.1666667, 0.1666667]
    assert "keys" not in attention["maps"][0]


def test_stream_prints_deltas(run):
    """--stream prints the text as it comes; with --json each delta and then the whole."""
    assert run("translate", "hi there", "--stream") == (0, "HI THERE\n", "")
    _, out, _ = run("translate", "hi", "--stream", "--json")
    *deltas, final = map(json.loads, out.splitlines())
    assert [one["delta"]["text"] for one in deltas] == ["H", "I"]
    assert (final["source"], final["text"]) == ("hi", "HI")


@pytest.mark.parametrize("command", ["translate", "complete", "caption", "transcribe"])
def test_a_stream_that_fails_at_once_prints_nothing(run, tmp_path, command):
    """Where no token came, stdout stays empty, and the error stands alone."""
    file = tmp_path / "input"
    file.write_text("hi")
    code, out, err = run(command, str(file), "--stream", "--server", "localhost:1")
    assert (code, out) == (1, "")
    assert err.startswith("error: can't reach a server at localhost:1")


def test_a_stream_that_breaks_off_ends_its_line(capsys):
    """What comes after begun text stands on a line of its own, and an answer without text is an empty line."""
    with pytest.raises(OSError), streamed_line() as show:
        show("half")
        raise OSError
    with streamed_line():
        pass
    with streamed_line(as_json=True):
        print("{}")
    assert capsys.readouterr().out == "half\n\n{}\n"


def test_classes_as_bars(run):
    """One text gets its classes as bars with percentages."""
    code, out, _ = run("classify", "hello")
    first, second = out.splitlines()
    assert code == 0
    assert first.split()[:3] == ["greeting", "75.0", "%"]
    assert first.count("█") > second.count("█")


def test_lines_get_class_and_probability(run):
    """A line gets its class, a tab, its probability, and a word if it is out of scope."""
    _, out, _ = run("classify", stdin=b"hello\nwho invented the internet\n")
    assert out.splitlines() == ["greeting\t0.7500", "greeting\t0.7500\tout_of_scope"]


@pytest.mark.parametrize(
    ("arguments", "one", "lines"),
    [
        ([], ["NAME\t0.7500\t0-3\tAnn"], ["NAME=Ann", ""]),
        (["--aggregation", "none"], ["NAME\t0.7500\t0-3\tAnn", "O\t0.7500\t4-8\tsays"], ["NAME=Ann\tO=says", "O=no"]),
    ],
)
def test_entities_are_printed_and_tokens_where_they_are_asked_for(run, arguments, one, lines):
    """A text without entities gets none, whether it is alone or a line of several."""
    assert run("classify-tokens", "Ann says", *arguments)[1].splitlines() == one
    assert run("classify-tokens", "no", *arguments)[1].count("\n") == len(arguments) // 2
    assert run("classify-tokens", *arguments, stdin=b"Ann says\nno\n")[1].splitlines() == lines


def test_attended_words_are_drawn(run):
    """With --attention the words stand above their weights, and the caption says what was drawn and what wasn't."""
    _, out, _ = run("classify", "hello there", "--attention")
    lines = out.splitlines()
    assert lines[0].split() == ["hello", "there"]
    assert lines[1].count("14") == 2
    assert lines[2] == "% of [CLS]'s attention; [CLS] 57, [SEP] 14 · encoder layer 1, mean of 3 heads"


def test_images_are_classified(run, server, tmp_path):
    """One gets its classes as bars; each of several a line behind its name, and one that fails harms no other."""
    files = {name: tmp_path / name for name in ("one", "bad", "gone", "two")}
    for name in ("one", "bad", "two"):
        files[name].write_text(name)
    assert run("classify", "--image", str(files["one"])) == run("classify", "hello")
    assert server.requests[0].inputs[0].image == b"one"
    code, out, err = run("classify", *(word for file in files.values() for word in ("--image", str(file))))
    assert (code, out) == (1, f"{files['one']}\tgreeting\t0.7500\n{files['two']}\tgreeting\t0.7500\n")
    assert err.splitlines() == [
        f"error: {files['bad']}: the image is bad; send a better one (INVALID_ARGUMENT)",
        f"error: {files['gone']}: can't be read: No such file or directory (INVALID_ARGUMENT)",
    ]
    _, out, _ = run("classify", "--image", str(files["two"]), "--json")
    assert json.loads(out)["source"] == str(files["two"])


def test_an_image_is_lit_where_the_class_token_looked(run, tmp_path):
    """With --attention it stands above the classes, and the caption says whose attention was drawn; so do reports."""
    photo, page = tmp_path / "photo.png", tmp_path / "attention.html"
    photo.write_bytes(png(Image.new("RGB", (40, 20), "white")))
    _, out, _ = run("classify", "--image", str(photo), "--attention")
    words = " ".join(out.split())
    assert "[CLS] where [CLS] looked: its largest weight is brightest · encoder layer 1, mean of 3 heads" in words
    assert words.index("looked") < words.index("greeting 75.0 %")
    assert run("classify", "--image", str(photo), "--report", str(page))[0] == 0
    assert "data:image/" in page.read_text("utf-8")


def test_models_as_a_table_and_as_json(run):
    """The models are a table for people and objects for programs."""
    _, table, _ = run("models")
    assert "shout/1" in table
    assert "decoder cross 1 × 3" in table
    assert "takes interventions" in table
    _, out, _ = run("models", "--json")
    assert json.loads(out)["taps"] == [{"kind": "cross", "stack": "decoder", "layer": 0, "heads": 3}]


def test_the_table_of_models_cuts_nothing(run, monkeypatch):
    """Long names go on below, and of a model that reads no text there is a dash, not 0 tokens."""
    long = {"name": "matcher-of-pictures", "task": "question_answering", "architecture": "BertForQuestionAnswering"}
    numbers = {"version": "1", "precision": "fp32", "package_sha256": "", "max_source_tokens": 0}
    taps = (Tap("self", "text_encoder", 0, 12), Tap("self", "image_encoder", 0, 12))
    model = Model(**long, **numbers, max_target_tokens=64, taps=taps, labels=(), ready=True, takes_interventions=False)
    monkeypatch.setattr(Client, "models", lambda _: [model])
    _, table, _ = run("models")
    assert "…" not in table
    assert "64 out" in table
    assert "0 in" not in table
    assert re.search(r" question_answering +BertF\S+ +- ", table)


def as_process(server, *arguments, **options):
    """Run `regard ARGUMENTS` on the canned server as a process, whose output goes where `options` say."""
    environment = os.environ | {"REGARD_SERVER": server.target, "COLUMNS": "80"} | options.pop("env", {})
    command = [sys.executable, "-m", "regard.cli", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, **options)


@pytest.mark.parametrize(
    "arguments", [["translate", "hi"], ["translate", "hi", "--json"], ["models"], ["--version"], ["models", "--help"]]
)
def test_output_that_cant_be_written_is_one_line(server, arguments):
    """A full disk is told as such, whether it shows at once or as the process ends."""
    with open("/dev/full", "w") as full:
        ended = as_process(server, *arguments, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.decode() == "error: can't write the output: No space left on device\n"


@pytest.mark.parametrize("arguments", [["translate", "hi"], ["models"], ["--version"]])
def test_a_closed_pipe_is_quiet(server, arguments):
    """Whoever has read enough isn't told so."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        ended = as_process(server, *arguments, stdout=closed)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("arguments", [["models"], ["translate", "ét", "--attention"], ["translate", "ét"]])
def test_what_the_encoding_lacks_is_replaced(server, arguments):
    """A stdout in ASCII has question marks instead."""
    ended = as_process(server, *arguments, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"?" in ended.stdout


def test_json_in_ascii_has_escapes(server):
    """Nothing is lost of a record."""
    command = ["translate", "ét", "--json"]
    ended = as_process(server, *command, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert json.loads(ended.stdout.decode("ascii"))["text"] == "ÉT"


def test_no_server(run):
    """A missing server is one line that says what to do."""
    code, out, err = run("translate", "hi", "--server", "localhost:1")
    assert (code, out) == (1, "")
    assert err == (
        "error: can't reach a server at localhost:1 (Connection refused): "
        "start one with `regard serve --models models/` or name it with --server\n"
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_http_port_of_a_server_is_told_from_none(run, host):
    """Who names the port of the metrics and the playground is told so; that of another page is no server's."""
    metrics, other = CollectorRegistry(), CollectorRegistry()
    for registry, name in ((metrics, "regard_requests_total"), (other, "requests_total")):
        Counter(name, "Requests.", registry=registry)
        port = HttpServer("127.0.0.1", 0, make_app(registry, list))
        port.start()
        try:
            code, _, err = run("translate", "hi", "--server", f"{host}:{port.port}")
        finally:
            port.stop()
        assert (code, err.count("\n")) == (1, 1)
        assert ("that is the HTTP port of a Regard server" in err) == (registry is metrics)
        assert ("start one with" in err) == (registry is other)


def test_a_refused_request_is_one_line(run, server):
    """The server's own words become the error."""
    server.refusals = [grpc.StatusCode.NOT_FOUND]
    assert run("translate", "hi") == (1, "", "error: refused with NOT_FOUND\n")


def test_a_report_is_written(run, server, tmp_path):
    """--report asks for every head by itself, prints the answer as always, and says where the page is."""
    page = tmp_path / "attention.html"
    code, out, err = run("translate", "they grow", "--report", str(page))
    assert (code, out) == (0, "THEY GROW\n")
    assert err == f"report written to {page}\n"
    assert "THEY GROW" in page.read_text("utf-8")
    options = server.requests[0].attention
    assert (options.layers, options.heads, options.reduction, options.granularity) == ([], [], 1, 2)


def test_a_report_of_lines_holds_those_that_were_answered(run, tmp_path):
    """A report of lines shows the answered ones in their order, also when others failed."""
    page = tmp_path / "attention.html"
    code, out, err = run("classify", "--report", str(page), stdin=b"hello you\n\nbad\ngoodbye\n")
    assert code == 1
    assert out.splitlines() == ["greeting\t0.7500", "", "", "greeting\t0.7500"]
    assert err.endswith(f"report written to {page}\n")
    written = page.read_text("utf-8")
    assert 0 < written.index('"source":"hello you"') < written.index('"source":"goodbye"')
    assert written.count('"task":"classification"') == 2


@pytest.mark.parametrize(("lines", "code"), [(b"", 0), (b"\n\n", 0), (b"bad\n", 1)])
def test_a_report_of_no_answers_is_not_written(run, tmp_path, lines, code):
    """Where no line was answered there is no page, and stderr says so."""
    page = tmp_path / "attention.html"
    ended, _, err = run("translate", "--report", str(page), stdin=lines)
    assert ended == code
    assert err.splitlines()[-1] == f"no report written to {page}: no answer to show"
    assert not page.exists()


def test_a_report_of_a_wrong_call_is_not_spoken_of(run, tmp_path):
    """What is wrong with the call is all that stderr tells."""
    _, _, err = run("translate", "--report", str(tmp_path / "attention.html"), "--file", "/nowhere/at/all")
    assert err == "error: can't read /nowhere/at/all: No such file or directory\n"


def test_a_report_holds_as_many_answers_as_a_page_does(run, tmp_path):
    """Lines beyond what a page holds are answered, and the report says that it leaves them out."""
    page = tmp_path / "attention.html"
    code, out, err = run("translate", "--report", str(page), stdin=b"hi\n" * 103)
    assert (code, out.count("HI\n")) == (0, 103)
    assert err.splitlines()[-1] == "it shows the first 100 of 103 answers, as many as a page holds"
    assert page.read_text("utf-8").count('"task":"translation"') == 100


def test_a_report_holds_as_many_weights_as_a_page_does(run, monkeypatch, tmp_path):
    """Answers from the first one that finds no room are left out; a first one alone is refused by the page."""
    page = tmp_path / "attention.html"
    monkeypatch.setattr("regard.report.MOST_WEIGHTS", 50)  # of which a word has 8, and four words have 50
    code, out, err = run("translate", "--report", str(page), stdin=b"hi\nho\na b c d\nhi\n")
    assert (code, out.splitlines()) == (0, ["HI", "HO", "A B C D", "HI"])
    assert err.splitlines()[-1] == "it shows the first 2 of 4 answers, as many as a page holds"
    assert page.read_text("utf-8").count('"task":"translation"') == 2
    for limit in ("regard.report.MOST_WEIGHTS", "regard.report.document.MOST_WEIGHTS"):
        monkeypatch.setattr(limit, 7)
    code, _, err = run("translate", "--report", str(page), stdin=b"hi\nho\n")
    assert (code, "a report holds at most 7 weights, not 8" in err) == (1, True)


def test_a_file_that_cannot_be_read_harms_no_other(run, tmp_path):
    """It is told of by its name, as one that the server refuses, and the files around it are captioned in order."""
    files = {name: tmp_path / name for name in ("gone", "one", "bad", "folder", "two")}
    files["folder"].mkdir()
    for name in ("one", "bad", "two"):
        files[name].write_text(name)
    code, out, err = run("caption", *map(str, files.values()))
    assert (code, out) == (1, f"{files['one']}\tONE\n{files['two']}\tTWO\n")
    assert err.splitlines() == [
        f"error: {files['gone']}: can't be read: No such file or directory (INVALID_ARGUMENT)",
        f"error: {files['bad']}: the image is bad; send a better one (INVALID_ARGUMENT)",
        f"error: {files['folder']}: can't be read: Is a directory (INVALID_ARGUMENT)",
    ]
    _, out, _ = run("caption", str(files["gone"]), str(files["one"]), "--json")
    failed, answered = map(json.loads, out.splitlines())
    assert failed["failure"]["message"] == "can't be read: No such file or directory"
    assert (answered["source"], answered["text"]) == (str(files["one"]), "ONE")


def test_undecodable_argument(run):
    """An argument that is no UTF-8 is refused before it is sent."""
    code, _, err = run("translate", "\udcff")
    assert code == 1
    assert err.startswith("error: the text holds a lone surrogate (U+DCFF)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["translate"], "give a text"),
        (["classify"], "give a text"),
        (["translate", "hi", "--file", "x"], "not both"),
        (["translate", "--file", "/nowhere/at/all"], "can't read /nowhere/at/all: No such file or directory"),
        (["translate", "--stream", "--file", "x"], "--stream takes one text"),
        (["translate", "hi", "--stream", "--report", "x"], "give one of them"),
        (["translate", "hi", "--ban", "hi", "--markup", "html"], "without --markup: give one of them"),
        (["translate", "--file", "x", "--num-return-sequences", "2"], "give --json for several"),
        (["translate", "hi", "--report", "/nowhere/x.html"], "can't write /nowhere/x.html: /nowhere is no directory"),
        (["classify", "hi", "--image", "a.png"], "--image is instead of a text or --file"),
        (["classify", "--file", "x", "--image", "a.png"], "--image is instead of a text or --file"),
        (["classify", "--image", "a.png", "--pair", "hi"], "--pair is the second of two texts"),
        (["models", "--server", ""], "--server needs an address: HOST:PORT, such as localhost:50051"),
        (["translate", "hi", "--server", " "], "--server needs an address"),
        (["models", "--server", "http://localhost:50051"], "give HOST:PORT alone, such as localhost:50051"),
        (["classify", "hi", "--report", "/"], "can't write /: it is a directory"),
    ],
)
def test_wrong_calls(run, arguments, words):
    """A command called wrongly says what it needs, and exits with 2."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_quality_is_told_below_the_translation(run):
    """With --quality, the score, what may be wrong, and the figures behind it stand below the text."""
    code, out, _ = run("translate", "they grow oranges", "--quality")

    assert code == 0
    assert out.splitlines() == [
        "THEY GROW ORANGES",
        "quality 0.50  under-translation  perhaps left out: oranges",
        "coverage 62, confidence 75, repetition 0 (in %)",
    ]


def test_a_glossary_is_read_from_a_file(run, tmp_path):
    """Each term of the file is told with what stands in its place; JSON holds the same."""
    file = tmp_path / "terms.tsv"
    file.write_text("they\tTHEY\n\ngrow\tRAISE\n")

    code, out, _ = run("translate", "they grow", "--glossary", str(file))
    _, as_json, _ = run("translate", "they grow", "--glossary", str(file), "--json")

    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["they", "THEY", "kept"]
    assert lines[2] == ["grow", "–", "missing", "expected:", "RAISE"]
    assert [match["verdict"] for match in json.loads(as_json)["glossary"]] == ["kept", "missing"]


@pytest.mark.parametrize(
    ("content", "says"), [("car auto\n", "line 1: not a source term, a tab"), ("a\t\n", "line 1"), ("\n", "no terms")]
)
def test_a_glossary_that_is_none_is_refused(run, tmp_path, content, says):
    """The file and the line are named before anything is sent."""
    file = tmp_path / "terms.tsv"
    file.write_text(content)

    code, _, err = run("translate", "they grow", "--glossary", str(file))

    assert code == 2
    assert says in " ".join(err.split())


def test_unknown_words_are_not_replaced_in_a_stream(run, server):
    """The option goes into the request; beside --stream it's refused."""
    assert run("translate", "they grow", "--replace-unknowns")[0] == 0
    assert server.requests[-1].replace_unknowns

    code, _, err = run("translate", "they grow", "--replace-unknowns", "--stream")
    assert code == 2
    assert "--replace-unknowns" in err
