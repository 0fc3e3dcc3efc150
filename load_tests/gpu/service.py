"""A server of the demonstration packages on the provider, and its answers over gRPC."""

from __future__ import annotations

import os
from pathlib import Path

from load_tests.gpu.course import DEMONSTRATION, Course
from load_tests.gpu.inputs import TEXTS
from load_tests.peers.results import Figure
from load_tests.peers.server import Server
from regard.client import AttentionOptions, Client
from regard.manifest import Task

COUNT = 20


def ask(course: Course) -> list[Figure]:
    """Return the share of requests that were answered, with attention; the server starts on no other provider."""
    precision = course.precisions[-1]
    os.environ["REGARD_ENGINE__PROVIDER"] = course.provider
    server = Server(_demonstration(course, precision), instances=1, threads=1)
    try:
        with Client(server.target, timeout_s=60) as client:
            texts, utterances = (TEXTS[task].read_text("utf-8").splitlines()[:COUNT] for task in TEXTS)
            translated = [client.translate(text, model="demo-en-fr", attention=AttentionOptions()) for text in texts]
            classified = [
                client.classify(text, model="demo-intent", attention=AttentionOptions()) for text in utterances
            ]
    finally:
        server.stop()
    answers = {
        Task.TRANSLATION: [bool(answer.text and answer.attention) for answer in translated],
        Task.CLASSIFICATION: [bool(answer.classes and answer.attention) for answer in classified],
    }
    return [
        Figure(f"service, {precision}: {task} answered with attention", "share", [sum(told) / COUNT], 1.0)
        for task, told in answers.items()
    ]


def _demonstration(course: Course, precision: str) -> Path:
    """Return a models directory of links to the demonstration's packages alone."""
    models = course.workspace / "service"
    for name in DEMONSTRATION:
        link = models / name / "1"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(course.package(name, precision).directory.resolve())
    return models
