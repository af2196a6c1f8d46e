"""Every setting of the service, from the environment (HETLORA_...) or by keyword; see docs/settings.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aggregator_service.observability.logs import LogFormat, LogLevel
from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.common import YEAR_SECONDS

ENVIRONMENT_PREFIX: Final = "HETLORA_"

# A field with a bound of its own states them all: of two of one kind pydantic would keep the one here.
Seconds = Annotated[float, Field(ge=0, le=YEAR_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
Role = Literal["all", "api", "worker"]


class Settings(BaseSettings):
    """How one service runs; immutable, given to `open_service` and `serve`.

    Raises:
        SettingsError: a value that does not fit, named by its environment variable.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True)

    data_dir: Path = Field(
        Path("hetlora-data"),
        description="Folder of the database, the objects, the updates and the generated operator token.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="`postgresql://USER:PASSWORD@HOST/NAME`, the password percent-encoded (`@` as `%40`); "
        "without it a SQLite file in `data_dir`.",
    )
    database_connections: int = Field(
        8,
        ge=3,
        le=1000,
        description="Most connections that this process opens to the database, "
        "and requests that it works on at a time, but for two that are the round worker's.",
    )
    object_store_url: str | None = Field(
        None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$",
        description="`s3://BUCKET[/PREFIX]` for objects and updates, with credentials, region and endpoint "
        "in `AWS_...`; without it folders of `data_dir`.",
    )
    role: Role = Field(
        "all", description="What this process does: answer requests, bring rounds on, or both."
    )
    claim_seconds: float = Field(
        60.0,
        ge=1,
        le=YEAR_SECONDS,
        allow_inf_nan=False,
        description="How long a round waits for a worker that died before another takes it up; "
        "at least a second.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8440, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate to serve with, and of those between it and a root."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key, not encrypted.")
    insecure_http: bool = Field(
        False,
        description="Listen without TLS on other addresses than loopback, as behind a proxy that brings it.",
    )
    web_page_dir: Path | None = Field(
        None,
        description="Folder of the browser client's built page, served at `/page/`; "
        "without it no page is served.",
    )
    web_page_isolated: bool = Field(
        True,
        description="Send the page with the headers that let it train with several threads "
        "(`Cross-Origin-Opener-Policy`, `Cross-Origin-Embedder-Policy`); without them it has one.",
    )
    operator_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="The first admin's token, at least 16 characters of printable ASCII without blanks; "
        "without it one is generated into `data_dir`/operator-token.",
    )
    signing_key: Path | None = Field(
        None,
        description="PEM file of the Ed25519 key, mode 0600, that manifests of the registry are signed with; "
        "without it one is generated into `data_dir`/registry-key.pem when the first is asked for.",
    )
    max_json_bytes: int = Field(64 * 1024, ge=1024, description="Largest JSON body that is read.")
    max_update_bytes: int = Field(
        256 * 1024**2,
        ge=1,
        description="Largest update that is read; the bundle's adapter specification sets a lower limit.",
    )
    max_open_uploads: int = Field(
        4,
        ge=1,
        description="Uploads in parts that a device may have; one more ends the oldest. "
        "Bodies of updates, too, that it may be sending to a process at a time; one more is refused.",
    )
    body_timeout_seconds: PositiveSeconds = Field(
        60.0,
        description="How long a request's body may stand still before it is given up; "
        "one that takes longer than this must also bring 1 KiB a second. "
        "On Linux an answer, too, that is not read.",
    )
    max_bundle_file_bytes: int = Field(
        8 * 1024**3, ge=1, description="Largest bundle file that an operator may upload."
    )
    max_requests_per_minute: int = Field(
        600, ge=1, le=100_000, description="Most requests of one device in a minute; more are refused."
    )
    max_refused_enrolments_per_minute: int = Field(
        60,
        ge=1,
        le=100_000,
        description="Most enrolments in a minute that are told that their token is wrong; others come back.",
    )
    check_ins_per_second: float = Field(
        100.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="How many devices of a population are asked to come in a second; the more there are, the "
        "longer each stays away.",
    )
    least_retry_seconds: PositiveSeconds = Field(
        5.0, description="No device is asked to come back sooner, where there is no work for it."
    )
    most_retry_seconds: PositiveSeconds = Field(
        6 * 3600.0,
        description="No device is asked to stay away longer, even if more come than are wanted; at least "
        "`HETLORA_LEAST_RETRY_SECONDS`.",
    )
    max_failures_per_round: int = Field(
        3,
        ge=1,
        description="After this many assignments of a round given back or expired a device is not asked.",
    )
    worker_interval_seconds: float = Field(
        1.0,
        ge=0.01,
        le=YEAR_SECONDS,
        allow_inf_nan=False,
        description="How often the round worker looks for leases and windows that ran out; at least 0.01.",
    )
    keep_updates_seconds: Seconds = Field(
        7 * 24 * 3600.0,
        description="How long the updates of an ended round, and what their devices were sent, "
        "stay in the store.",
    )
    keep_quarantined_seconds: Seconds = Field(
        30 * 24 * 3600.0,
        description="How long an update that a screen took out of its round stays in the store, "
        "to be looked at.",
    )
    keep_orphans_seconds: float = Field(
        24 * 3600.0,
        ge=3600,
        le=YEAR_SECONDS,
        allow_inf_nan=False,
        description="How long an object that nothing refers to stays, such as a file of a bundle to be; "
        "at least an hour.",
    )
    keep_audit_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="How many days entries of the audit log stay; without it for ever.",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="Who aggregates: processes of this machine, or a Ray cluster."
    )
    aggregation_workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that aggregate: 1 is the service's own; on a cluster, how many to keep busy.",
    )
    ray_address: str | None = Field(
        None, description="Address of a Ray cluster; without it one is started on this machine."
    )
    database_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,  # SQLite counts milliseconds in 32 bits
        description="How long a write waits for another process to release the database; an hour at most.",
    )
    log_format: LogFormat = Field(
        "text", description="Lines on standard error for people, or `json` objects for machines."
    )
    log_level: LogLevel = Field("info", description="From which level on the service's own lines are logged.")
    tracing: bool | None = Field(
        None,
        description="Whether spans go to OpenTelemetry; without it, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.",
    )
    shutdown_seconds: int = Field(
        10,
        ge=0,
        le=YEAR_SECONDS,
        description="How long a stopping service waits for requests in flight; then they are told 503.",
    )

    @field_validator("operator_token")
    @classmethod
    def _can_be_brought(cls, value: SecretStr | None) -> SecretStr | None:
        # What `Authorization` carries, and commands take; the error says nothing of the value.
        if value is not None and not re.fullmatch("[!-~]+", value.get_secret_value()):
            raise ValueError("is not printable ASCII without blanks")
        return value

    @field_validator("most_retry_seconds")
    @classmethod
    def _not_below_the_least(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("least_retry_seconds", 0):
            raise ValueError("is below HETLORA_LEAST_RETRY_SECONDS")
        return value

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = [
                {
                    "loc": [f"{ENVIRONMENT_PREFIX}{'_'.join(map(str, fault['loc'])).upper()}"],
                    "msg": fault["msg"],
                }
                for fault in error.errors(include_input=False)
            ]
            raise SettingsError(
                "settings of the service cannot be used", got=faults_in_words(faults)
            ) from error
