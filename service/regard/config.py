"""Settings: from flags, `REGARD_*` environment variables and a TOML file, in that order of weight."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """How one model is run. Every model of a server gets the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["auto", "cpu"] = "auto"
    """The execution provider; `auto` takes the best that there is."""
    instances: int = Field(default=1, ge=1, le=64)
    """Threads that run the model side by side; they share its weights."""
    intra_op_threads: int = Field(default=0, ge=0, le=256)
    """Threads within one run; 0 divides the machine's cores among the instances."""
    max_queue: int = Field(default=512, ge=1)
    """Requests that may wait for a place; one more is refused."""
    max_rows: int = Field(default=64, ge=1, le=4096)
    """Rows that an instance decodes side by side."""
    max_batch_tokens: int = Field(default=4096, ge=1)
    """Padded tokens of one encoder or classifier run."""
    max_stall_tokens: int = Field(default=1024, ge=1)
    """Padded tokens of one encoder run while rows are decoding, so that they don't stand still."""
