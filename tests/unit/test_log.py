"""What the server's log tells of an error, and what it keeps to itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from regard.config import ServerSettings
from regard.log import configure_logging

LETTER = "my secret letter"
CREDENTIAL = b"Bearer secret\xe9\xff"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Leave the loggers as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fail_on(text: str) -> None:
    """Fail as an engine does, which holds what a client sent."""
    words = text.split()
    raise ValueError(f"{len(words)} words are too many")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_has_no_values_of_a_request(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error's own words and the lines that it came through are logged, and no local variable of theirs."""
    configure_logging(ServerSettings(log_format=log_format))
    try:
        fail_on(LETTER)
    except ValueError as error:
        structlog.get_logger("regard.test").error("internal error", exc_info=error)
    logged = capsys.readouterr().err

    assert "3 words are too many" in logged
    assert "fail_on" in logged
    assert "secret" not in logged


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("library", ["grpc._cython.cygrpc", "grpc._common"])
def test_metadata_that_is_not_utf8_is_logged_without_its_value(
    library: str, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says that there was some; gRPC's own would have had the credential, and a traceback."""
    configure_logging(ServerSettings(log_format=log_format))
    try:
        CREDENTIAL.decode()
    except UnicodeDecodeError:
        logging.getLogger(library).exception("Invalid encoding on %s", CREDENTIAL)
    logging.getLogger(library).error("something else on %s", "all")
    logged = capsys.readouterr().err

    assert len(logged.splitlines()) == 2
    assert "metadata that is not UTF-8" in logged
    assert "secret" not in logged
    assert "something else on all" in logged
