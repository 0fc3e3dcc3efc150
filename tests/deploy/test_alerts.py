"""The alerts of availability fire for what keeps pods from serving, and for nothing that passes by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import yaml

from .conftest import CHART

SCRAPE_S = 15
LOADED_S = 20
BACK_OFFS_S = (10, 20, 40, 80, 160, *[300] * 10)
"""How long the kubelet waits before it starts a container again:
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restarts
"""
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
STARTUP_S = VALUES["probes"]["startup"]["periodSeconds"] * VALUES["probes"]["startup"]["failureThreshold"]
LIVENESS_S = VALUES["probes"]["liveness"]["periodSeconds"] * VALUES["probes"]["liveness"]["failureThreshold"]
DRAIN_S = VALUES["preStopSeconds"] + VALUES["settings"]["drain_timeout_s"] + 10
HOUR_S = 3600

Span = tuple[str, float]


@dataclass(frozen=True)
class Scrape:
    """What Prometheus has of a pod at one moment; None is no sample."""

    up: int | None = None
    regard_model_ready: int | None = None
    process_start_time_seconds: int | None = None


def pod(*spans: Span) -> list[Scrape]:
    """Return an hour's scrapes of a pod that is so in turn: "gone", "silent", "loading" or "ready"; the last stays."""
    scrapes, starts, before = [], 0, "gone"
    for state, seconds in [*spans[:-1], (spans[-1][0], HOUR_S)]:
        starts += state == "loading" or (state == "ready" and before in ("gone", "silent"))
        told = {"gone": Scrape(), "silent": Scrape(0), "loading": Scrape(1, 0, starts), "ready": Scrape(1, 1, starts)}
        scrapes += [told[state]] * round(seconds / SCRAPE_S)
        before = state
    return scrapes[: HOUR_S // SCRAPE_S]


def over_and_over(*spans: Span) -> list[Span]:
    """Return what a pod does before each of its restarts, and the waits between."""
    return [one for back_off_s in BACK_OFFS_S for one in (*spans, ("silent", back_off_s))]


def holds(expr: str, pods: Sequence[list[Scrape]], at: int) -> bool:
    """Return whether an alert's query finds anything at one scrape. Knows the queries of the alerts of availability."""

    def within(scrapes: list[Scrape], series: str, minutes: str) -> list[int]:
        window = scrapes[max(0, at + 1 - int(minutes) * 60 // SCRAPE_S) : at + 1]
        return [value for one in window if (value := getattr(one, series)) is not None]

    if found := re.fullmatch(r'absent\((\w+)\{job="regard"\} == 1\)', expr):
        return not any(getattr(one[at], found[1]) == 1 for one in pods)
    if found := re.fullmatch(r'(\w+)\{job="regard"\} == 0', expr):
        return any(getattr(one[at], found[1]) == 0 for one in pods)
    if found := re.fullmatch(r'changes\((\w+)\{job="regard"\}\[(\d+)m\]\) > (\d+)', expr):
        told = [within(one, found[1], found[2]) for one in pods]
        return any(sum(a != b for a, b in pairwise(one)) > int(found[3]) for one in told)
    shape = r"max by \([a-z, ]+\) \(max_over_time\((\w+)\[(\d+)m\]\)\) == 0 and on \(job, instance\) up"
    found = re.fullmatch(shape, expr)
    assert found, f"not a query that is known here: {expr}"
    here = [one for one in pods if one[at].up is not None]
    return any(max(within(one, found[1], found[2]), default=1) == 0 for one in here)


def rules() -> list[dict[str, Any]]:
    """Return the rules that tell whether pods are there and serve."""
    (group,) = yaml.safe_load((CHART / "monitoring" / "alerts.yaml").read_text())["groups"]
    return [rule for rule in group["rules"] if not re.search(r"\b(rate|regard_device)", rule["expr"])]


def fired(*pods: list[Scrape]) -> set[str]:
    """Return the alerts that fire within the hour."""
    names = set()
    for rule in rules():
        run = longest = 0
        for at in range(HOUR_S // SCRAPE_S):
            run = run + 1 if holds(rule["expr"], pods, at) else 0
            longest = max(longest, run)
        if (longest - 1) * SCRAPE_S >= int(rule["for"].removesuffix("m")) * 60:
            names.add(rule["alert"])
    return names


SERVING = pod(("ready", HOUR_S))


@pytest.mark.parametrize(
    ("pods", "alerts"),
    [
        pytest.param([], {"RegardDown"}, id="there is no pod"),
        pytest.param([pod(("silent", HOUR_S))], {"RegardDown", "RegardPodSilent"}, id="it ends before it listens"),
        pytest.param(
            [pod(*over_and_over(("loading", STARTUP_S)))],
            {"RegardDown", "RegardModelNotReady", "RegardRestarts"},
            id="loading never ends",
        ),
        pytest.param(
            [pod(*over_and_over(("loading", LOADED_S), ("ready", 60)))],
            {"RegardDown", "RegardRestarts"},
            id="it runs out of memory again and again",
        ),
        pytest.param(
            [SERVING, pod(*over_and_over(("loading", LOADED_S), ("ready", 60)))],
            {"RegardRestarts"},
            id="one of two runs out of memory again and again",
        ),
        pytest.param([SERVING, pod(("silent", HOUR_S))], {"RegardPodSilent"}, id="one of two never comes up"),
        pytest.param([SERVING, pod(("loading", HOUR_S))], {"RegardModelNotReady"}, id="one of two goes on loading"),
    ],
)
def test_what_does_not_heal_is_told(pods: list[list[Scrape]], alerts: set[str]) -> None:
    """Every way in which pods don't serve has an alert, and it is critical where none does."""
    assert fired(*pods) == alerts
    if SERVING not in pods:
        assert {rule["labels"]["severity"] for rule in rules() if rule["alert"] in alerts} >= {"critical"}


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param([SERVING], id="it serves"),
        pytest.param([pod(("silent", 60), ("loading", STARTUP_S - SCRAPE_S), ("ready", HOUR_S))], id="it loads slowly"),
        pytest.param(
            [pod(("ready", 600), ("loading", LIVENESS_S), ("silent", 10), ("loading", LOADED_S), ("ready", HOUR_S))],
            id="a model dies once",
        ),
        pytest.param(
            [
                pod(("ready", 600), ("loading", DRAIN_S), ("gone", HOUR_S)),
                pod(("gone", 600 + DRAIN_S), ("silent", 15), ("loading", STARTUP_S - SCRAPE_S), ("ready", HOUR_S)),
            ],
            id="a pod is recreated",
        ),
        pytest.param(
            [SERVING, pod(("loading", STARTUP_S - SCRAPE_S), ("gone", HOUR_S))], id="a pod goes before it has loaded"
        ),
    ],
)
def test_what_passes_is_not_told(pods: list[list[Scrape]]) -> None:
    """Loading for as long as the probes let it, one restart and a rollout wake nobody."""
    assert fired(*pods) == set()
