"""What a models directory holds, and which model a request means."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regard.catalog import Catalog, Model, load_catalog
from regard.engine.search.options import options_of
from regard.errors import ConfigurationError, InvalidInputError, ModelNotFoundError, PackageError
from regard.manifest import Task
from regard.metrics import Metrics

from .conftest import catalog_of, write_package

NOBODY = 65534
"""A user who is not root, by their number."""


def names_of(catalog: Catalog) -> list[str]:
    """Return `NAME/VERSION` of every model."""
    return [model.label for model in catalog.models]


async def test_models_stand_in_order_of_name_and_version_number(tmp_path: Path) -> None:
    """Version 10 comes after version 9, and is the one that a name alone means."""
    for name, version in (("b", "9"), ("b", "10"), ("a", "2")):
        write_package(tmp_path, name, version, Task.TRANSLATION)

    catalog = catalog_of(tmp_path, Metrics())

    assert names_of(catalog) == ["a/2", "b/9", "b/10"]
    assert catalog.find("b").label == "b/10"
    assert catalog.find("b", "9").label == "b/9"


async def test_a_name_left_out_must_be_clear(tmp_path: Path) -> None:
    """With two translators, the request has to say which; versions of one make no doubt."""
    for name, version in (("a", "1"), ("a", "2")):
        write_package(tmp_path, name, version, Task.TRANSLATION)
    assert catalog_of(tmp_path, Metrics()).resolve("", "", Task.TRANSLATION).label == "a/2"
    write_package(tmp_path, "b", "1", Task.TRANSLATION)
    catalog = catalog_of(tmp_path, Metrics())

    with pytest.raises(InvalidInputError, match="name one of a, b") as caught:
        catalog.resolve("", "", Task.TRANSLATION)
    assert caught.value.field == "model_name"
    with pytest.raises(ModelNotFoundError, match="no model for classification; it has a, b"):
        catalog.resolve("", "", Task.CLASSIFICATION)


async def test_several_directories_are_served_together(tmp_path: Path) -> None:
    """`--models` may be given more than once."""
    write_package(tmp_path / "one", "a", "1", Task.TRANSLATION)
    write_package(tmp_path / "two", "b", "1", Task.CLASSIFICATION)

    catalog = load_catalog([tmp_path / "one", tmp_path / "two"], _no_worker)

    assert names_of(catalog) == ["a/1", "b/1"]


async def test_texts_have_as_many_tokens_as_the_operator_lets_them(tmp_path: Path) -> None:
    """In and out, and none more than the model takes; what is longer is refused with that number."""
    for name, task in (("a", Task.TRANSLATION), ("b", Task.CLASSIFICATION), ("c", Task.CAPTIONING)):
        write_package(tmp_path, name, "1", task)
    whole = load_catalog([tmp_path], _no_worker)
    cut = load_catalog([tmp_path], _no_worker, 5)
    roomy = load_catalog([tmp_path], _no_worker, 1 << 20)

    for name in "abc":
        before = whole.find(name)
        assert roomy.find(name).manifest == before.manifest != cut.find(name).manifest
        assert cut.find(name).package.sha256 == before.package.sha256
    for name in "ab":
        text, codec = cut.find(name).manifest.text, cut.find(name).text
        assert text is not None and codec is not None and text.max_source_tokens == 5
        with pytest.raises(InvalidInputError, match="tokens, special tokens included; the model takes at most 5;"):
            codec.encode("w5 w6 w7 w8 w9 w10", truncate=False, field="text")
    for name in "ac":
        generation = cut.find(name).manifest.generation
        assert generation is not None and generation.max_target_tokens == 5
        with pytest.raises(InvalidInputError, match="max_new_tokens is 6; it must be from 1 to 5"):
            options_of(generation, {"max_new_tokens": 6})


async def test_two_packages_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    """Neither is served in the other's place."""
    first = write_package(tmp_path / "one", "a", "1", Task.TRANSLATION)
    second = write_package(tmp_path / "two", "a", "1", Task.CLASSIFICATION)

    with pytest.raises(ConfigurationError) as caught:
        load_catalog([tmp_path / "one", tmp_path / "two"], _no_worker)

    assert all(str(place) in caught.value.message for place in ("a/1", first, second))


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    """A server without models is a mistake."""
    with pytest.raises(ConfigurationError, match="there is no model in"):
        load_catalog([tmp_path], _no_worker)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """A wrong path is named."""
    with pytest.raises(ConfigurationError, match=r"no directory of models .*nowhere"):
        load_catalog([tmp_path / "nowhere"], _no_worker)


def test_a_damaged_package_is_refused_by_name(tmp_path: Path) -> None:
    """One byte more in a file is found, and the message names package and file."""
    directory = write_package(tmp_path, "a", "1", Task.TRANSLATION)
    with (directory / "tokenizer.json").open("a") as tokenizer:
        tokenizer.write(" ")

    with pytest.raises(PackageError, match=r"package a/1: tokenizer\.json differs"):
        load_catalog([tmp_path], _no_worker)


def test_a_package_that_bears_another_name_is_refused(tmp_path: Path) -> None:
    """A copied directory can't pass for another model."""
    directory = write_package(tmp_path, "a", "1", Task.TRANSLATION)
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"name": "b"}))

    with pytest.raises(PackageError, match="package a/1: its manifest says b/1"):
        load_catalog([tmp_path], _no_worker)


def test_an_unfinished_export_is_passed_over(tmp_path: Path) -> None:
    """A directory without a manifest is not a package yet, and a hidden one never is."""
    write_package(tmp_path, "a", "1", Task.TRANSLATION)
    write_package(tmp_path, ".b", "1", Task.TRANSLATION)
    (tmp_path / "c" / "1").mkdir(parents=True)

    assert names_of(load_catalog([tmp_path], _no_worker)) == ["a/1"]


@pytest.fixture
def unprivileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Return what makes permissions bind from then on, as they don't for root; the test is in its own directory."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the directories above are root's alone
    user = os.geteuid()
    yield lambda: os.seteuid(user or NOBODY)
    os.seteuid(user)


@pytest.mark.parametrize("shut", ["b", "b/1"])
def test_a_directory_that_can_not_be_read_is_named(unprivileged: Callable[[], None], shut: str) -> None:
    """It may hold a package, which is not to be missing from a server that calls itself ready."""
    for name in ("a", "b"):
        write_package(Path("models"), name, "1", Task.TRANSLATION)
    Path("models", shut).chmod(0)
    unprivileged()

    with pytest.raises(ConfigurationError, match=f"models/{shut}, where .* can't be read: Permission denied"):
        load_catalog([Path("models")], _no_worker)


def test_what_is_no_place_for_packages_need_not_be_readable(unprivileged: Callable[[], None]) -> None:
    """A file system's own directory, hidden ones and files lie beside packages."""
    package = write_package(Path("models"), "a", "1", Task.TRANSLATION)
    for shut in ("lost+found", ".snapshots", "a/.partial"):
        Path("models", shut).mkdir(mode=0)
    for file in (Path("models/README"), package.parent / "README"):
        file.touch(mode=0)
    Path("models/gone").symlink_to("nowhere")
    unprivileged()

    assert names_of(load_catalog([Path("models")], _no_worker)) == ["a/1"]


def _no_worker(package: object) -> Model:
    return None  # type: ignore[return-value]
