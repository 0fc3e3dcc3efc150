"""The server's GPUs, as their driver tells of them whenever /metrics is read.

| name | type | labels | what |
| --- | --- | --- | --- |
| `regard_device_memory_bytes` | gauge | device | the memory of a GPU |
| `regard_device_memory_used_bytes` | gauge | device | what of it is in use, by anybody |
| `regard_device_utilization_ratio` | gauge | device | the share of the last moments in which it ran something |
| `regard_device_power_watts` | gauge | device | what it draws |
| `regard_device_temperature_celsius` | gauge | device | how hot it is |

`device` is the driver's number of a GPU. Where there is no GPU, or nvidia-ml-py isn't installed, there
are none of them, as while a driver is lost; what a GPU doesn't tell is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Read = Callable[[Any, Any], float]

_GAUGES: dict[str, tuple[str, Read]] = {
    "memory_bytes": ("The memory of a GPU.", lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total),
    "memory_used_bytes": ("The memory in use.", lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
    "utilization_ratio": (
        "The share of the last moments in which it ran something.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    "power_watts": ("What it draws.", lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    "temperature_celsius": (
        "How hot it is.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    ),
}


class DeviceCollector(Collector):
    """Asks the driver through `nvml`, which is the module pynvml, initialised, or a fake of it."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every gauge with the GPUs that tell it; none while the driver is lost."""
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError:
            return
        for name, (what, read) in _GAUGES.items():
            family = GaugeMetricFamily(f"regard_device_{name}", what, labels=["device"])
            for index in range(count):
                try:
                    value = read(self._nvml, self._nvml.nvmlDeviceGetHandleByIndex(index))
                except self._nvml.NVMLError:
                    continue
                family.add_metric([str(index)], value)
            yield family


def watch_process(registry: CollectorRegistry) -> None:
    """Add what Linux tells of the server's own process to `registry`, such as `process_resident_memory_bytes`."""
    ProcessCollector(registry=registry)


def watch_devices(registry: CollectorRegistry) -> int:
    """Add the GPUs' gauges to `registry` if the driver tells of any; return how many GPUs there are."""
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    if count:
        registry.register(DeviceCollector(pynvml))
    return count
