"""What is told of GPUs: a fake of the driver's library stands in for it."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from regard import devices
from regard.devices import watch_devices


class NVMLError(Exception):
    """What the driver's library raises."""


def driver(*, gpus: int, running: bool = True) -> ModuleType:
    """Return a fake of pynvml; the second GPU doesn't tell what it draws."""

    def start() -> None:
        if not running:
            raise NVMLError("Driver Not Loaded")

    def power(gpu: int) -> int:
        if gpu:
            raise NVMLError("Not Supported")
        return 350_500

    fake = ModuleType("pynvml")
    vars(fake).update(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=start,
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=80 << 30, used=gpu + 1 << 30),
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=25),
        nvmlDeviceGetPowerUsage=power,
        nvmlDeviceGetTemperature=lambda gpu, sensor: 41,
    )
    return fake


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()


def test_every_gpu_is_told_in_base_units(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, watts and shares of one, by the driver's number; what a GPU doesn't tell is left out."""
    monkeypatch.setitem(sys.modules, "pynvml", driver(gpus=2))

    assert watch_devices(registry) == 2

    assert registry.get_sample_value("regard_device_memory_bytes", {"device": "0"}) == 80 << 30
    assert registry.get_sample_value("regard_device_memory_used_bytes", {"device": "1"}) == 2 << 30
    assert registry.get_sample_value("regard_device_utilization_ratio", {"device": "1"}) == 0.25
    assert registry.get_sample_value("regard_device_power_watts", {"device": "0"}) == 350.5
    assert registry.get_sample_value("regard_device_power_watts", {"device": "1"}) is None
    assert registry.get_sample_value("regard_device_temperature_celsius", {"device": "1"}) == 41


def test_the_table_names_every_gauge(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's table and what a GPU is told by agree."""
    monkeypatch.setitem(sys.modules, "pynvml", driver(gpus=1))
    watch_devices(registry)

    told = {family.name for family in registry.collect()}
    assert told == set(re.findall(r"^\| `(regard_\w+)`", devices.__doc__ or "", re.MULTILINE))


def test_a_driver_that_is_lost_leaves_the_other_metrics(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape tells nothing of GPUs then, and all the rest; once the driver is back, it tells of them again."""

    def fail() -> int:
        raise NVMLError("Driver/library version mismatch")

    library = driver(gpus=1)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    watch_devices(registry)
    Gauge("other", "Told all the same.", registry=registry)

    with monkeypatch.context() as lost:
        lost.setattr(library, "nvmlDeviceGetCount", fail)
        assert [family.name for family in registry.collect()] == ["other"]
    assert registry.get_sample_value("regard_device_memory_bytes", {"device": "0"}) == 80 << 30


@pytest.mark.parametrize(
    "library", [None, driver(gpus=2, running=False), driver(gpus=0)], ids=["not-installed", "no-driver", "no-gpu"]
)
def test_without_a_gpu_nothing_is_told(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, library: ModuleType | None
) -> None:
    """Neither a metric nor an error."""
    monkeypatch.setitem(sys.modules, "pynvml", library)

    assert watch_devices(registry) == 0
    assert generate_latest(registry) == b""
