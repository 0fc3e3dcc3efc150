"""What every result has, whatever its task: the model and the time that it took, or a failure."""

from __future__ import annotations

from regard.answers import ModelVersion, Timing
from regard.client.failures import Failure
from regard.v1 import result_pb2


def read_failure(failure: result_pb2.Failure, list_name: str, first_index: int) -> Failure:
    """Read a failure; the index in its field becomes the caller's, whatever request carried it."""
    field, message = failure.field, failure.message
    prefix = f"{list_name}["
    if first_index and field.startswith(prefix):
        index, bracket, rest = field.removeprefix(prefix).partition("]")
        if bracket and index.isdecimal():
            sent, own = f"{prefix}{index}]", f"{prefix}{int(index) + first_index}]"
            field, message = own + rest, message.replace(sent, own)
    retry_after_s = failure.retry_after_s if failure.HasField("retry_after_s") else None
    return Failure(code=failure.code, message=message, field=field, retry_after_s=retry_after_s)


def read_timing(timing: result_pb2.Timing) -> Timing:
    """Read where the time of one result went, in seconds."""
    return Timing(queue_s=timing.queue_s, encode_s=timing.encode_s, decode_s=timing.decode_s)


def read_model_version(model: result_pb2.ModelVersion) -> ModelVersion:
    """Read which model answered."""
    return ModelVersion(name=model.name, version=model.version)
