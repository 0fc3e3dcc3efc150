"""Settings: where they come from, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from regard.config import EngineSettings, load_settings
from regard.errors import ConfigurationError


def test_flags_outweigh_the_environment_which_outweighs_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting comes from the first of the three that has it, within the engine's as well."""
    file = tmp_path / "regard.toml"
    server = 'host = "file"\nmax_inputs = 1\nmax_message_bytes = 1111\n'
    file.write_text(server + "[engine]\nmax_queue = 1\nmax_rows = 1\ninstances = 3\n")
    monkeypatch.setenv("REGARD_MAX_INPUTS", "2")
    monkeypatch.setenv("REGARD_MAX_MESSAGE_BYTES", "2222")
    monkeypatch.setenv("REGARD_ENGINE__MAX_QUEUE", "2")
    monkeypatch.setenv("REGARD_ENGINE__MAX_ROWS", "2")

    settings = load_settings({"max_message_bytes": 3333, "engine": {"max_rows": 3}}, file)

    assert (settings.host, settings.max_inputs, settings.max_message_bytes) == ("file", 2, 3333)
    assert (settings.engine.instances, settings.engine.max_queue, settings.engine.max_rows) == (3, 2, 3)
    assert settings.engine.max_batch_tokens == EngineSettings().max_batch_tokens


@pytest.mark.parametrize(("given", "means"), [("auto", "auto"), ("3", 3)])
def test_instances_are_a_number_or_auto(given: str, means: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a flag and in the environment, where everything is a text."""
    assert load_settings({"engine": {"instances": given}}).engine.instances == means
    monkeypatch.setenv("REGARD_ENGINE__INSTANCES", given)
    assert load_settings({}).engine.instances == means


def test_directories_stand_side_by_side_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PATH."""
    monkeypatch.setenv("REGARD_MODELS", "/a:/b")

    assert load_settings({}).models == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"grpc_port": 70_000}, "setting grpc_port: .*65535"),
        ({"grpc_port": 8080}, "both 8080"),
        ({"engine": {"max_rows": 0}}, "setting engine.max_rows: .*greater than or equal to 1"),
        ({"engine": {"instances": "many"}}, "setting engine.instances: give auto, or a number from 1 to 64"),
        ({"engine": {"instances": 0}}, "setting engine.instances: give auto, or a number from 1 to 64"),
        ({"engine": {"provider": "abacus"}}, "setting engine.provider: .*'auto'"),
        ({"attention_health_share": 1.5}, "setting attention_health_share: .*less than or equal to 1"),
        ({"attention_health_share": float("nan")}, "setting attention_health_share"),
        ({"colour": "red"}, "setting colour"),
        ({"models": ()}, "at least one directory"),
    ],
)
def test_a_wrong_setting_is_named(flags: dict[str, object], says: str) -> None:
    """The message has the setting and what it may be, in one line."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        load_settings(flags)

    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [("max_inputs = ", "not TOML"), ("max_imputs = 3", "setting max_imputs"), (None, "No such file")],
    ids=["broken", "misspelt", "missing"],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str | None, says: str) -> None:
    """A file that can't be read, or holds what is no setting, is not passed over."""
    file = tmp_path / "regard.toml"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigurationError, match=says):
        load_settings({}, file)


def test_settings_do_not_change() -> None:
    """What a server was started with stays."""
    settings = load_settings({})

    with pytest.raises(ValueError, match="frozen"):
        settings.max_inputs = 3


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "gpu.example"}, False),
        ({"host": "0.0.0.0", "playground": True}, True),
        ({"playground": False}, False),
    ],
)
def test_the_playground_is_for_this_machine_unless_it_is_said(flags: dict[str, object], has: bool) -> None:
    """By default it is served where no other machine reaches it, and otherwise as the setting says."""
    assert load_settings(flags).has_playground is has
