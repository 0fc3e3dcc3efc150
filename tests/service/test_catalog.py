"""What a models directory holds, and which model a request means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regard.catalog import Catalog, Model, load_catalog
from regard.errors import ConfigurationError, InvalidInputError, ModelNotFoundError, PackageError
from regard.manifest import Task
from regard.metrics import Metrics

from .conftest import catalog_of, write_package


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


def _no_worker(package: object) -> Model:
    return None  # type: ignore[return-value]
