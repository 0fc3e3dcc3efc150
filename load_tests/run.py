"""Load a server that is started for it: `make load`, or `python -m load_tests.run --models models`.

First a closed loop, whose users wait for their answers, shows what the server can do; then an open loop, at half that
rate if none is given, shows how long people wait. Ends with 1 if any request failed, if there is a kind of request that
was never made, or if the server didn't stop well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.html import get_html_report
from locust.runners import LocalRunner
from locust.stats import stats_history
from rich.console import Console
from rich.table import Table

from load_tests.kinds import kinds
from load_tests.locustfile import TIMEOUT_S, ClosedUser, OpenUser, RegardUser
from load_tests.measures import Measures, Phase, Row, Sample
from load_tests.peers import results
from load_tests.peers.results import Figure
from load_tests.picture import draw
from regard.cli.demo.server import serving
from regard.errors import ConfigurationError

SHARE_OF_CLOSED = 0.5

console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Start, load, stop, and tell."""
    options = _read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    report, picture = options.output / "report.html", options.output / "latency.svg"
    try:
        with serving(options.models, options.output / "server.log") as server:
            environment, measures = load(server.target, options)
    except ConfigurationError as error:
        sys.exit(f"there is no server to load: {error}")
    report.write_text(get_html_report(environment, show_download_link=False), "utf-8")
    conditions = f"Server and users shared the same {len(os.sched_getaffinity(0))} cores."
    picture.write_text(draw(measures, conditions), "utf-8")
    console.print(_table_of(measures))
    console.print(f"{conditions} {_processor_times()}", style="dim")
    console.print("Latencies are those of answers, in an open loop from when each request was due.", style="dim")
    console.print(f"written to {report}, {picture} and {results.write('load', _figures(measures))}")
    faults = [*measures.faults, *(f"a user broke: {crash['msg']}" for crash in environment.runner.exceptions.values())]
    if server.exit_code != 0:
        faults.append(f"the server ended with {server.exit_code} after SIGTERM")
    for fault in faults:
        console.print(f"failed: {fault}", style="red", markup=False, soft_wrap=True)
    sys.exit(bool(faults))


def load(target: str, options: argparse.Namespace) -> tuple[Environment, Measures]:
    """Let the users of both loops ask the server at `target`, one loop after the other."""
    environment = Environment(
        user_classes=[ClosedUser, OpenUser],
        events=events,
        locustfile="load_tests/locustfile.py",
        host=target,
        stop_timeout=2 * TIMEOUT_S,
        catch_exceptions=False,
        parsed_options=options,
    )
    runner = environment.create_local_runner()
    measures = Measures([str(kind) for kind in kinds(options.attention_share)])
    begun_s = time.time()

    def record(request_type: str, name: str, start_time: float, exception: Exception | None, **event: Any) -> None:
        failure = None if exception is None else str(exception)
        measures.samples.append(Sample(request_type, name, start_time - begun_s, event["response_time"], failure))

    def phase(user_class: type[RegardUser], users: int, about: str) -> Phase:
        _spawn(runner, user_class, users)
        begin_s = time.time() - begun_s
        gevent.sleep(options.seconds)
        end_s = time.time() - begun_s
        _spawn(runner, user_class, 0)
        return Phase(user_class.loop, about, begin_s, end_s)

    events.request.add_listener(record)
    history = gevent.spawn(stats_history, runner)
    users = f"{options.users} users" + (f" who think for {options.think:g} s" if options.think else "")
    measures.phases.append(phase(ClosedUser, options.users, users))
    options.rate = options.rate or max(1.0, round(SHARE_OF_CLOSED * measures.rate(measures.phases[0]), 1))
    measures.phases.append(phase(OpenUser, 1, f"{options.rate:g} requests a second, at random"))
    runner.stop()
    history.kill()
    return environment, measures


def _spawn(runner: LocalRunner, user_class: type[RegardUser], users: int) -> None:
    """Wait until so many users of the class run, those beyond them having got their last answers."""
    runner.start(users, spawn_rate=100, user_classes=[user_class])
    runner.spawning_greenlet.join()


def _processor_times() -> str:
    """Say what this process took, and what the server took that has ended."""
    spent = os.times()
    users_s, server_s = spent.user + spent.system, spent.children_user + spent.children_system
    return f"Processor time: {users_s:.0f} s for the users, {server_s:.0f} s for the server with its start."


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m load_tests.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", type=Path, default=Path("models"), help="the demonstration's packages (default: models)")
    add("--output", type=Path, default=Path("build/load"), help="the report's directory (default: build/load)")
    add("--seconds", type=float, default=12.0, help="seconds of each loop (default: 12)")
    add("--users", type=int, default=8, help="users of the closed loop (default: 8)")
    add("--think", type=float, default=0.0, help="seconds between an answer and the next request (default: 0)")
    add("--rate", type=float, help="requests per second of the open loop (default: half of what the closed reached)")
    add("--attention-share", type=float, default=0.25, help="of requests that ask for attention (default: 0.25)")
    add("--seed", type=int, default=1, help="of what is asked, and when (default: 1)")
    options = parser.parse_args()
    if options.seconds <= 0 or options.users < 1 or (options.rate is not None and options.rate <= 0):
        parser.error("--seconds and --rate must be above 0, and --users at least 1")
    if options.think < 0 or not 0 <= options.attention_share <= 1:
        parser.error("--think must be at least 0, and --attention-share from 0 to 1")
    return options


def _table_of(measures: Measures) -> Table:
    table = Table("loop", "kind")
    for name in ("requests", "failures", "per second", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="right")
    rows = measures.rows
    for phase in measures.phases:
        for number, row in enumerate(row for row in rows if row.loop == phase.loop):
            table.add_row(phase.loop if number == 0 else "", row.kind, *_cells(row))
        table.add_section()
    return table


def _cells(row: Row) -> list[str]:
    latencies = ["–"] * 3 if row.latency_ms is None else [f"{latency_ms:.0f}" for latency_ms in row.latency_ms]
    return [f"{row.requests}", f"{row.failures}", f"{row.per_s:.1f}", *latencies]


def _figures(measures: Measures) -> list[Figure]:
    figures = []
    for row in measures.rows:
        name = f"{row.loop} loop, {row.kind}"
        figures += [Figure(f"{name}: answers", "requests/s", [row.per_s])]
        figures += [Figure(f"{name}: failures", "requests", [row.failures])]
        latencies = zip(("p50", "p95", "p99"), row.latency_ms or (), strict=False)
        figures += [Figure(f"{name}: {quantile}", "ms", [latency_ms]) for quantile, latency_ms in latencies]
    return figures


if __name__ == "__main__":
    main()
