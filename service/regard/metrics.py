"""Every metric of the server, by name.

| name | type | labels | what |
| --- | --- | --- | --- |
| `regard_requests_total` | counter | model, version, task, code | requests ended, by gRPC code |
| `regard_request_seconds` | histogram | model, version, task | from the arrival of a request to its last byte |
| `regard_requests_in_flight` | gauge | task | requests accepted and not ended |
| `regard_inputs_total` | counter | model, version, task, code | inputs ended: a request holds one or more |
| `regard_input_tokens_total` | counter | model, version, task | tokens that inputs were encoded to |
| `regard_queue_seconds` | histogram | model, version, task | an input's wait for a place in the batch |
| `regard_encode_seconds` | histogram | model, version, task | the encoder's or classifier's run that held an input |
| `regard_decode_seconds` | histogram | model, version, task | from that run to an input's last token |
| `regard_generated_tokens_total` | counter | model, version | tokens generated, ends included and given prefixes not |
| `regard_time_to_first_token_seconds` | histogram | model, version | from a stream's arrival to a text's first token |
| `regard_attention_responses_total` | counter | model, version, task | inputs answered with attention |
| `regard_attention_bytes_total` | counter | model, version, task | bytes of attention weights sent |
| `regard_received_bytes` | gauge | | bytes of requests of 64 KiB and more that are not answered yet |
| `regard_undelivered_bytes` | gauge | | bytes of attention weights that wait for callers to take them |
| `regard_attention_entropy_ratio` | histogram | model, version | how widely outputs attend over their sources |
| `regard_attention_coverage_ratio` | histogram | model, version | how much of their sources outputs attend to |
| `regard_attention_sinks_ratio` | histogram | model, version | outputs' attention on special tokens of their sources |
| `regard_attention_repetition_ratio` | histogram | model, version | pairs of tokens that look where one before did |
| `regard_attention_repeated_output_ratio` | histogram | model, version | pairs of tokens that came before |
| `regard_queue_depth` | gauge | model, version | inputs that wait for a place in the batch |
| `regard_running_rows` | gauge | model, version | rows being decoded |
| `regard_run_rows` | histogram | model, version, graph | rows of one run of a graph: its batch size |
| `regard_run_padded_tokens_total` | counter | model, version, graph | tokens computed, padding included |
| `regard_run_seconds` | histogram | model, version, graph | the time of one run of a graph |
| `regard_model_instances` | gauge | model, version | instances that run the model side by side |
| `regard_model_threads` | gauge | model, version | threads within one run of an instance |
| `regard_model_ready` | gauge | model, version | 1 while the model takes requests |

Those that end in `_ratio` are from 0 to 1, of the best sequence of each input of the requests that the
setting `attention_health_share` picks; `regard.attention.health` defines them.

Where there are GPUs, those of `regard.devices` stand beside them; `regard serve` adds those of its process on Linux,
such as `process_resident_memory_bytes`.

Labels are bounded: a request for a model that is not there has empty `model` and `version`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import RestrictedRegistry

from regard.attention.health import Health
from regard.engine.request import Phases

_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_PHASE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RATIO_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256)

_MOST_KEPT = 64
"""Runs that an observer keeps to itself before it records them."""

_BY_MODEL = ("model", "version")
_BY_TASK = (*_BY_MODEL, "task")
_BY_CODE = (*_BY_TASK, "code")
_BY_GRAPH = (*_BY_MODEL, "graph")


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """The labels of one model version and its task; empty for a request that has found none."""

    model: str = ""
    version: str = ""
    task: str = ""


class _Registry(CollectorRegistry):
    """A registry whose observers record what they have kept to themselves before anybody reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[ModelObserver] = []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, up to date."""
        self._update()
        yield from super().collect()

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        """Return what some names are of, up to date."""
        self._update()
        return super().restricted_registry(names)

    def _update(self) -> None:
        for observer in self.observers:
            observer.record()


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = _Registry()

        def counter(name: str, what: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"regard_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"regard_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"regard_{name}", what, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests ended, by code.", _BY_CODE)
        self.request_seconds = histogram(
            "request_seconds", "From a request's arrival to its last byte.", _BY_TASK, _REQUEST_BUCKETS_S
        )
        self.requests_in_flight = gauge("requests_in_flight", "Requests accepted and not ended.", ("task",))
        self.inputs = counter("inputs", "Inputs ended, by code.", _BY_CODE)
        self.input_tokens = counter("input_tokens", "Tokens that inputs were encoded to.", _BY_TASK)
        self.queue_seconds = histogram(
            "queue_seconds", "An input's wait for a place in the batch.", _BY_TASK, _PHASE_BUCKETS_S
        )
        self.encode_seconds = histogram(
            "encode_seconds", "The encoder's or classifier's run that held an input.", _BY_TASK, _PHASE_BUCKETS_S
        )
        self.decode_seconds = histogram(
            "decode_seconds", "From the encoder's run to an input's last token.", _BY_TASK, _PHASE_BUCKETS_S
        )
        self.generated_tokens = counter("generated_tokens", "Tokens generated, without given prefixes.", _BY_MODEL)
        self.time_to_first_token_seconds = histogram(
            "time_to_first_token_seconds", "From a stream's arrival to a first token.", _BY_MODEL, _PHASE_BUCKETS_S
        )
        self.attention_responses = counter("attention_responses", "Inputs answered with attention.", _BY_TASK)
        self.attention_bytes = counter("attention_bytes", "Bytes of attention weights sent.", _BY_TASK)
        self.received_bytes = gauge("received_bytes", "Bytes of large requests that are not answered yet.")
        self.undelivered_bytes = gauge("undelivered_bytes", "Bytes of attention that wait for callers to take them.")
        self.attention_entropy = histogram(
            "attention_entropy_ratio",
            "How widely outputs attend over their sources; 1 is evenly.",
            _BY_MODEL,
            _RATIO_BUCKETS,
        )
        self.attention_coverage = histogram(
            "attention_coverage_ratio", "How much of their sources outputs attended to.", _BY_MODEL, _RATIO_BUCKETS
        )
        self.attention_sinks = histogram(
            "attention_sinks_ratio", "Outputs' attention on special tokens of their sources.", _BY_MODEL, _RATIO_BUCKETS
        )
        self.attention_repetition = histogram(
            "attention_repetition_ratio",
            "Pairs of tokens that look where a pair before did.",
            _BY_MODEL,
            _RATIO_BUCKETS,
        )
        self.attention_repeated_output = histogram(
            "attention_repeated_output_ratio",
            "Pairs of tokens that came before in their output.",
            _BY_MODEL,
            _RATIO_BUCKETS,
        )
        self.queue_depth = gauge("queue_depth", "Inputs that wait for a place in the batch.", _BY_MODEL)
        self.running_rows = gauge("running_rows", "Rows being decoded.", _BY_MODEL)
        self.run_rows = histogram("run_rows", "Rows of one run of a graph.", _BY_GRAPH, _ROW_BUCKETS)
        self.run_padded_tokens = counter("run_padded_tokens", "Tokens computed, padding included.", _BY_GRAPH)
        self.run_seconds = histogram("run_seconds", "The time of one run of a graph.", _BY_GRAPH, _PHASE_BUCKETS_S)
        self.model_instances = gauge("model_instances", "Instances that run the model side by side.", _BY_MODEL)
        self.model_threads = gauge("model_threads", "Threads within one run of an instance.", _BY_MODEL)
        self.model_ready = gauge("model_ready", "1 while the model takes requests.", _BY_MODEL)

    def observer(self, model: str, version: str) -> ModelObserver:
        """Return the observer that a worker of this model reports to."""
        observer = ModelObserver(self, model, version)
        self.registry.observers.append(observer)
        return observer

    def inputs_ended(self, labels: ModelLabels, code: str, count: int = 1) -> None:
        """Count inputs, served or not."""
        self.inputs.labels(labels.model, labels.version, labels.task, code).inc(count)

    def input_served(self, labels: ModelLabels, tokens: int, phases: Phases) -> None:
        """Record how long one served input was and where its time went."""
        values = (labels.model, labels.version, labels.task)
        self.input_tokens.labels(*values).inc(tokens)
        self.queue_seconds.labels(*values).observe(phases.queue_s)
        self.encode_seconds.labels(*values).observe(phases.encode_s)
        self.decode_seconds.labels(*values).observe(phases.decode_s)

    def request_ended(self, labels: ModelLabels, code: str, seconds: float) -> None:
        """Count one request and its time."""
        values = (labels.model, labels.version, labels.task)
        self.requests.labels(*values, code).inc()
        self.request_seconds.labels(*values).observe(seconds)

    def attention_sent(self, labels: ModelLabels, num_bytes: int) -> None:
        """Count one input's attention weights."""
        values = (labels.model, labels.version, labels.task)
        self.attention_responses.labels(*values).inc()
        self.attention_bytes.labels(*values).inc(num_bytes)

    def attention_measured(self, labels: ModelLabels, health: Health) -> None:
        """Record the health of one output's attention."""
        values = (labels.model, labels.version)
        self.attention_entropy.labels(*values).observe(health.entropy)
        self.attention_coverage.labels(*values).observe(health.coverage)
        self.attention_sinks.labels(*values).observe(health.sink_share)
        self.attention_repetition.labels(*values).observe(health.repeated_positions)
        self.attention_repeated_output.labels(*values).observe(health.repeated_ngrams)


class _Run(NamedTuple):
    graph: str
    rows: int
    tokens: int
    seconds: float


class _Runs(NamedTuple):
    """What is recorded of one graph's runs: to find it by its labels takes longer than to record it."""

    rows: Histogram
    padded_tokens: Counter
    seconds: Histogram


class ModelObserver:
    """What one worker tells of its runs and its queue; called from the worker's threads."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._model = (model, version)
        self._queue_depth = metrics.queue_depth.labels(model, version)
        self._running_rows = metrics.running_rows.labels(model, version)
        self._runs: dict[str, _Runs] = {}
        self._kept: deque[_Run] = deque()

    def loaded(self, instances: int, threads: int) -> None:
        """Record how many instances run the model, and the threads within a run of each."""
        self._metrics.model_instances.labels(*self._model).set(instances)
        self._metrics.model_threads.labels(*self._model).set(threads)

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        """Note one run of a graph over `rows` rows and `tokens` padded tokens.

        Steps come every few milliseconds: many together are recorded in less time than each by itself.
        """
        self._kept.append(_Run(graph, rows, tokens, seconds))
        if len(self._kept) >= _MOST_KEPT:
            self.record()

    def record(self) -> None:
        """Record the runs that were noted since the last time; any thread may."""
        while self._kept:
            try:
                run = self._kept.popleft()
            except IndexError:  # another thread has recorded the last of them
                return
            runs = self._runs.get(run.graph) or self._runs.setdefault(run.graph, self._find(run.graph))
            runs.rows.observe(run.rows)
            runs.padded_tokens.inc(run.tokens)
            runs.seconds.observe(run.seconds)

    def _find(self, graph: str) -> _Runs:
        metrics, labels = self._metrics, (*self._model, graph)
        return _Runs(
            metrics.run_rows.labels(*labels),
            metrics.run_padded_tokens.labels(*labels),
            metrics.run_seconds.labels(*labels),
        )

    def queue(self, waiting: int, rows: int) -> None:
        """Record how many inputs wait and how many rows are decoded."""
        self._queue_depth.set(waiting)
        self._running_rows.set(rows)
