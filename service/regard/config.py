"""Settings: from flags, `REGARD_*` environment variables and a TOML file, in that order of weight."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from regard.errors import ConfigurationError

MIB = 1 << 20
MOST_INSTANCES = 64
PortNumber = Annotated[int, Field(ge=0, le=65535)]


class EngineSettings(BaseModel):
    """How one model is run. Every model of a server gets the same."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """The execution provider; `auto` takes the best that there is, of those that a package was exported for."""
    device_id: int = Field(default=0, ge=0, le=1023)
    """Which of the GPUs to use; a server uses one."""
    device_memory_bytes: int = Field(default=0, ge=0)
    """Bytes of the GPU's memory that each graph may take; 0 is no limit."""
    instances: Annotated[int, Field(ge=1, le=MOST_INSTANCES)] | Literal["auto"] = 1
    """Threads that run the model side by side; they share its weights. `auto` measures, when the model is loaded, how
    many serve most at full load, and takes those; it takes some seconds, and a GPU has one. A lone request has
    the threads of one instance: where it matters most, give 1."""
    intra_op_threads: int = Field(default=0, ge=0, le=256)
    """Threads within one run; 0 divides the machine's cores among the instances. Where instances are `auto`,
    the threads that are divided; 0 is as many as the machine has cores."""
    max_queue: int = Field(default=512, ge=1)
    """Requests that may wait for a place; one more is refused."""
    max_queue_s: float = Field(default=60.0, gt=0)
    """Seconds of work, as foreseen, that may wait for a place; more is refused."""
    priority_ageing_s: float = Field(default=10.0, gt=0)
    """Seconds after which a client of whom nothing was served goes on with its next request one priority higher."""
    max_rows: int = Field(default=64, ge=1, le=4096)
    """Rows that an instance decodes side by side."""
    max_batch_tokens: int = Field(default=1024, ge=1)
    """Padded tokens of one encoder or classifier run."""
    max_positions: int = Field(default=0, ge=0)
    """Tokens that a text may have, and an output together with its prompt; 0 is as many as the model takes. What reads
    and writes long texts takes memory: a run the square of a text's length for each head, a row's cache its length."""
    max_encode_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the time that encoding new requests may take while rows are decoding."""

    @field_validator("instances", mode="wrap")
    @classmethod
    def _number_or_auto(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError(f"give auto, or a number from 1 to {MOST_INSTANCES}") from error


class ServerSettings(BaseSettings):
    """What a server holds, where it listens and what it refuses.

    A nested setting is spelled with two underscores in the environment: `REGARD_ENGINE__MAX_ROWS`.
    """

    model_config = SettingsConfigDict(
        env_prefix="REGARD_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    models: Annotated[tuple[Path, ...], NoDecode] = (Path("models"),)
    """Directories of packages `NAME/VERSION/`; in the environment they stand side by side, as in PATH."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """The address that both ports listen on; `0.0.0.0` is every IPv4 interface, `::` every one."""
    grpc_port: PortNumber = 50051
    """The gRPC port; 0 takes a free one."""
    http_port: PortNumber = 8080
    """The port of /metrics, /healthz, /readyz and the playground; 0 takes a free one."""
    playground: bool | None = None
    """Whether the HTTP port has a page, /playground, on which a person asks the models. By default it has
    where the host is a loopback address, which no other machine reaches."""
    max_inputs: int = Field(default=64, ge=1, le=4096)
    """Inputs of one request."""
    max_message_bytes: int = Field(default=16 * MIB, ge=1024, le=1 << 30)
    """Bytes of one request; gRPC itself refuses a longer one. And of the likeliest tokens that a response may list,
    which top_logprobs asks for: what could come to more is refused."""
    max_received_bytes: int = Field(default=256 * MIB, ge=1)
    """Bytes of requests that may be held at once, from when one has come until it is answered, of those of 64 KiB and
    more; further ones are refused."""
    max_image_bytes: int = Field(default=8 * MIB, ge=1024, le=1 << 30)
    """Bytes of one image file."""
    max_image_pixels: int = Field(default=64_000_000, ge=1024, le=1 << 30)
    """Pixels of one image."""
    max_audio_bytes: int = Field(default=16 * MIB, ge=1024, le=1 << 30)
    """Bytes of one audio file, or of one sound's samples."""
    max_audio_s: float = Field(default=1800.0, ge=1, le=86_400)
    """Seconds of one sound. A request holds as much sound at once as one so long, and one more for each of
    `codec_threads`; the others of its sounds wait."""
    max_attention_bytes: int = Field(default=32 * MIB, ge=0, le=1 << 30)
    """Bytes of attention weights in one response, shared evenly by its inputs; or of attributions drawn over images.
    While outputs are made, 32 times as many may be held for it, for alignment, quality and the like."""
    max_undelivered_bytes: int = Field(default=512 * MIB, ge=1)
    """Bytes of attention weights that may wait for callers to take them, of all requests. While more than half as many
    do, requests for attention are refused, and streams end that hold more than an even share of that half."""
    max_stall_s: float = Field(default=60.0, gt=0)
    """Seconds for which a stream may lie unread; then it ends. Its connection holds the first of it, 64 KiB to some
    MiB, which need no reader."""
    max_attribution_runs: int = Field(default=1024, ge=1, le=1 << 20)
    """Runs of a model that the attribution of one input may take."""
    attention_health_share: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    """Share of the requests whose attention's health is measured, for the metrics regard_attention_*_ratio;
    those that might hold too many weights for it are left out."""
    codec_threads: int = Field(default=2, ge=1, le=64)
    """Threads that turn text into tokens and back, and attention into maps."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """How long accepted requests may take to finish once the server is told to stop."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto` is for people on a terminal and JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""
    engine: EngineSettings = EngineSettings()
    """How every model is run."""

    @property
    def has_playground(self) -> bool:
        """Whether the playground is served, given or by default."""
        return _is_loopback(self.host) if self.playground is None else self.playground

    @field_validator("models", mode="before")
    @classmethod
    def _split_search_path(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _some_models(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if not value:
            raise ValueError("give at least one directory of models")
        return value

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.grpc_port and self.grpc_port == self.http_port:
            raise ValueError(f"the gRPC and HTTP ports are both {self.grpc_port}; give two")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags, then the environment, then the TOML file, the first that knows a setting winning."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> ServerSettings:
    """Return the settings that `flags`, the environment and the TOML file `config` give together.

    Raises `ConfigurationError`, in one line that names the setting, for a file that can't be read
    and for a setting that is unknown or out of range.
    """
    if config is not None:
        _check_toml(config)

    class _Settings(ServerSettings):
        model_config = SettingsConfigDict(toml_file=config, extra="forbid")

    try:
        return _Settings(**flags)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_toml(config: Path) -> None:
    try:
        tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"configuration file {config}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"configuration file {config}: not TOML: {error}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return f"setting {name}: {message}" if name else message
