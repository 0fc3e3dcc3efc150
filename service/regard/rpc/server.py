"""One server: its ports, its models, and how it comes up and goes down."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from regard.catalog import Catalog
from regard.config import ServerSettings
from regard.metrics import Metrics
from regard.rpc.admission import Admission
from regard.rpc.attribution import AttributionService
from regard.rpc.caption import CaptionService
from regard.rpc.classification import ClassificationService
from regard.rpc.completion import CompletionService
from regard.rpc.health import Health, HealthService
from regard.rpc.http import HttpServer, make_app
from regard.rpc.interceptor import CallInterceptor
from regard.rpc.listener import Listener, by_name
from regard.rpc.models import ModelService
from regard.rpc.playground import Playground
from regard.rpc.question_answering import QuestionAnsweringService
from regard.rpc.received import Received
from regard.rpc.resources import Resources
from regard.rpc.similarity import SimilarityService
from regard.rpc.transcription import TranscriptionService
from regard.rpc.translation import TranslationService
from regard.rpc.undelivered import Undelivered
from regard.v1 import (
    attribution_pb2,
    attribution_pb2_grpc,
    caption_pb2,
    caption_pb2_grpc,
    classification_pb2,
    classification_pb2_grpc,
    completion_pb2,
    completion_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    question_answering_pb2,
    question_answering_pb2_grpc,
    similarity_pb2,
    similarity_pb2_grpc,
    transcription_pb2,
    transcription_pb2_grpc,
    translation_pb2,
    translation_pb2_grpc,
)

STOP_GRACE_S = 2.0
"""How long the last bytes may take to leave once every request has ended."""
MOST_PENDING, PENDING_TIMEOUT_S = 1 << 16, 600
"""Calls that may wait for the event loop, and how long: gRPC ends what is beyond with CANCELLED, which is final."""
LINGER_S = 0.1
"""How long nobody may have come before the door is taken away."""

SERVICES = (
    translation_pb2.DESCRIPTOR.services_by_name["TranslationService"].full_name,
    caption_pb2.DESCRIPTOR.services_by_name["CaptionService"].full_name,
    classification_pb2.DESCRIPTOR.services_by_name["ClassificationService"].full_name,
    completion_pb2.DESCRIPTOR.services_by_name["CompletionService"].full_name,
    transcription_pb2.DESCRIPTOR.services_by_name["TranscriptionService"].full_name,
    question_answering_pb2.DESCRIPTOR.services_by_name["QuestionAnsweringService"].full_name,
    similarity_pb2.DESCRIPTOR.services_by_name["SimilarityService"].full_name,
    attribution_pb2.DESCRIPTOR.services_by_name["AttributionService"].full_name,
    model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)

log = structlog.get_logger("regard.server")


class Server:
    """Serves the models of a catalog over gRPC, and its state over HTTP.

    Made and used within one event loop: `start`, then `stop`.
    """

    def __init__(self, settings: ServerSettings, catalog: Catalog, metrics: Metrics) -> None:
        self._settings = settings
        self._catalog = catalog
        self._admission = Admission()
        self._health = Health(catalog, metrics, lambda: self._listener.listening)
        self._health_service = HealthService(self._health)
        self._threads = ThreadPoolExecutor(settings.codec_threads, thread_name_prefix="regard-codec")
        self._received = Received(settings.max_received_bytes)
        self._undelivered = Undelivered(settings.max_undelivered_bytes)
        self._resources = Resources(settings, catalog, metrics, self._threads, self._undelivered)
        metrics.received_bytes.set_function(lambda: self._received.num_bytes)
        metrics.undelivered_bytes.set_function(lambda: self._undelivered.num_bytes)
        self._metrics = metrics
        self._listener = Listener(self._make_grpc, settings.host, settings.grpc_port)
        self._http: HttpServer | None = None
        self._playground: Playground | None = None
        self._following: asyncio.Task[None] | None = None
        self.http_port = 0

    @property
    def grpc_port(self) -> int:
        """The gRPC port, once it is bound."""
        return self._listener.port

    @property
    def accepting(self) -> bool:
        """Whether new requests are let in; false from the start of the drain on."""
        return self._admission.accepting

    async def start(self, stopping: asyncio.Event | None = None) -> None:
        """Listen on both ports, then load every model; requests are refused until theirs is loaded.

        Once `stopping` is set, no other model is loaded, and none is said to be ready any more. Raises
        `ConfigurationError`, naming the port, if one is taken, and what `Worker.start` raises. Call `stop` all the
        same.
        """
        settings, stopping = self._settings, stopping or asyncio.Event()
        self._listener.bind()
        self._playground = Playground(settings, self.grpc_port) if settings.has_playground else None
        app = make_app(self._metrics.registry, lambda: self._health.unready, self._playground)
        self._http = HttpServer(settings.host, settings.http_port, app)
        self.http_port = self._http.port
        self._http.start()
        await self._listener.start()
        for model in self._catalog.models:
            if not stopping.is_set():
                await asyncio.to_thread(model.worker.start)
            if stopping.is_set():
                return
            self._health_service.announce()
        self._following = asyncio.create_task(self._health_service.follow())

    async def stop(self) -> None:
        """Refuse new requests, finish the accepted ones within the drain timeout, and go down.

        Readiness and health turn first. What is not done in time ends with UNAVAILABLE.
        """
        self._health.draining = True
        self._health_service.announce()
        self._admission.close()
        log.info("draining", requests=self._admission.in_flight, timeout_s=self._settings.drain_timeout_s)
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._admission.wait_idle()
        except TimeoutError:
            log.warning("drain timeout", requests_cut=self._admission.in_flight)
        for model in self._catalog.models:
            await asyncio.to_thread(model.worker.stop)
        await self._refuse_latecomers()
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        self._health_service.close()
        await self._listener.stop(STOP_GRACE_S)
        if self._http is not None:
            await asyncio.to_thread(self._http.stop)
        if self._playground is not None:
            self._playground.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        log.info("stopped")

    async def _refuse_latecomers(self) -> None:
        """Answer what has arrived and waits for the event loop: gRPC would end it with CANCELLED, which is final."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S):
                refused = None
                while refused != self._admission.refused:
                    refused = self._admission.refused
                    await asyncio.sleep(LINGER_S)

    def _make_grpc(self) -> grpc.aio.Server:
        settings = self._settings
        server = by_name(
            grpc.aio.server(
                interceptors=[
                    CallInterceptor(
                        self._admission,
                        self._metrics,
                        self._received,
                        self._undelivered,
                        max_stall_s=settings.max_stall_s,
                    )
                ],
                options=[
                    ("grpc.so_reuseport", 0),
                    ("grpc.server.max_pending_requests", MOST_PENDING),
                    ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
                    ("grpc.server_max_unrequested_time_in_server", PENDING_TIMEOUT_S),
                    ("grpc.max_receive_message_length", settings.max_message_bytes),
                    ("grpc.max_send_message_length", settings.max_message_bytes + settings.max_attention_bytes),
                ],
            )
        )
        translation_pb2_grpc.add_TranslationServiceServicer_to_server(TranslationService(self._resources), server)
        caption_pb2_grpc.add_CaptionServiceServicer_to_server(CaptionService(self._resources), server)
        classification_pb2_grpc.add_ClassificationServiceServicer_to_server(
            ClassificationService(self._resources), server
        )
        transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(TranscriptionService(self._resources), server)
        question_answering_pb2_grpc.add_QuestionAnsweringServiceServicer_to_server(
            QuestionAnsweringService(self._resources), server
        )
        similarity_pb2_grpc.add_SimilarityServiceServicer_to_server(SimilarityService(self._resources), server)
        completion_pb2_grpc.add_CompletionServiceServicer_to_server(CompletionService(self._resources), server)
        attribution_pb2_grpc.add_AttributionServiceServicer_to_server(AttributionService(self._resources), server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self._catalog), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health_service, server)
        reflection.enable_server_reflection(SERVICES, server)
        return server
