"""A package's graphs, opened: on the best provider there is, and for as many instances as there are to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from regard.config import EngineSettings
from regard.engine.calibration import Contender, calibrate
from regard.engine.full_load import FullLoad
from regard.engine.instances import Sessions, graphs_of
from regard.engine.providers import ONNX_NAMES, Choice, choose, device_of
from regard.engine.scheduler import Clock
from regard.engine.session import OnnxSession, Session, Twins, why_not
from regard.engine.splits import Split, available_cores, settings_of, splits_of
from regard.errors import UnavailableError
from regard.manifest import Manifest, Package

log = structlog.get_logger(__name__)

SessionFactory = Callable[[Package, str, EngineSettings], Session]
ContenderFactory = Callable[[Manifest, Sessions, Split, EngineSettings, Clock], Contender]


def open_session(package: Package, graph: str, settings: EngineSettings) -> OnnxSession | Twins:
    """Load a graph of a package with ONNX Runtime, and its twin that gives taps, or is for a lone row, if it has one.

    The log tells what each runs on, and warns of a better provider that can't be had. Raises
    `ConfigurationError` for a provider that is asked for and not there, `PackageError` for a graph
    that was exported for none of those that are.
    """
    spec = package.manifest.graphs[graph]
    label = f"{package.manifest.name}/{package.manifest.version}"
    choice = choose(f"package {label}", spec.providers, settings.provider, lambda name: why_not(name, settings))
    for provider, reason in choice.passed_over.items():
        log.warning("provider passed over", model=label, graph=graph, provider=provider, why=reason)
    plain = _open(package, graph, settings, choice)
    if spec.tap_graph is not None:
        return Twins.taps_on_demand(plain, _open(package, spec.tap_graph, settings, choice))
    if spec.lone_graph is not None:
        return Twins.alone_apart(plain, _open(package, spec.lone_graph, settings, choice))
    return plain


def _open(package: Package, graph: str, settings: EngineSettings, choice: Choice) -> OnnxSession:
    spec = package.manifest.graphs[graph]
    device = device_of(choice.provider, settings)
    session = OnnxSession(package.path(spec.file), settings, choice.provider, device, spec)
    label = f"{package.manifest.name}/{package.manifest.version}"
    nodes = {provider: len(operators) for provider, operators in session.operators.items()}
    log.info(
        "graph loaded",
        model=label,
        graph=graph,
        provider=session.provider,
        nodes=nodes,
        intra_op_threads=settings.intra_op_threads,
    )
    return session


class LateOpening:
    """Opens a graph when the package that it is of was loaded long ago, and may have been replaced on disk since.

    What was opened is given out only if its files are still those of the package; else nothing is any more. They are
    read after it was opened, so that none can be exchanged in between.
    """

    def __init__(self, open_session: SessionFactory, package: Package, graph: str, settings: EngineSettings) -> None:
        self._open_session = open_session
        self._package = package
        self._graph = graph
        self._settings = settings
        self._altered = False

    def open(self) -> Session:
        """Return the graph, ready to run. Raises what opening it raises, and `UnavailableError` if it is another's."""
        if self._altered:
            raise self._refusal()
        try:
            return self._open_session(self._package, self._graph, self._settings)
        finally:
            self._verify()

    def _verify(self) -> None:
        manifest, altered = self._package.manifest, self._package.altered(self._graph)
        if altered is None:
            return
        self._altered = True
        log.error(
            "the package on disk is no longer the one that was loaded; restart the server",
            model=f"{manifest.name}/{manifest.version}",
            graph=self._graph,
            altered=altered,
        )
        raise self._refusal()

    def _refusal(self) -> UnavailableError:
        return UnavailableError(
            f"model {self._package.manifest.name!r} takes no interventions now: its package on disk is no longer the "
            "one that was loaded; restart the server"
        )


@dataclass(frozen=True)
class Loaded:
    """The sessions that a model's instances share, and the settings that they were opened with, `split` among them."""

    sessions: Sessions
    split: Split
    settings: EngineSettings

    @property
    def provider(self) -> str:
        """The execution provider that the model's first graph really runs on, as ONNX Runtime names it."""
        return next(iter(self.sessions.values())).provider


class Loader:
    """Loads a package for the instances that its settings ask for, or, if they are open, for those that serve most."""

    def __init__(
        self,
        package: Package,
        settings: EngineSettings,
        open_session: SessionFactory = open_session,
        contender: ContenderFactory = FullLoad,
    ) -> None:
        self._package = package
        self._settings = settings
        self._open_session = open_session
        self._contender = contender

    def load(self, clock: Clock) -> Loaded:
        """Open all graphs that an engine of the package runs. Raises what opening them raises."""
        instances, threads = self._settings.instances, self._settings.intra_op_threads
        if instances == "auto":
            return self._choose(threads or available_cores(), clock)
        return self._open(Split(instances, threads or max(1, available_cores() // instances)))

    def _open(self, split: Split) -> Loaded:
        settings = settings_of(split, self._settings)
        graphs = graphs_of(self._package.manifest)
        return Loaded({graph: self._open_session(self._package, graph, settings) for graph in graphs}, split, settings)

    def _choose(self, threads: int, clock: Clock) -> Loaded:
        """Try the splits of so many threads, and tell the log what each of them served."""
        manifest, started = self._package.manifest, clock()
        provider = ""

        def enter(split: Split) -> Contender:
            nonlocal provider
            loaded = self._open(split)
            provider = loaded.provider
            return self._contender(manifest, loaded.sessions, split, loaded.settings, clock)

        def candidates() -> Iterator[Split]:
            alone, *others = splits_of(threads)
            yield alone
            if provider == ONNX_NAMES["cpu"]:  # which is known by now; a GPU has one instance
                yield from others

        calibration = calibrate(candidates(), enter, clock)
        split = calibration.winner.split
        log.info(
            "instances chosen",
            model=f"{manifest.name}/{manifest.version}",
            instances=split.instances,
            intra_op_threads=split.threads,
            measured=calibration.told(manifest.task) or f"nothing, on {provider}",
            seconds=round(clock() - started, 1),
        )
        return Loaded(calibration.winner.sessions, split, settings_of(split, self._settings))
