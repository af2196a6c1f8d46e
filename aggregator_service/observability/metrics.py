"""Figures of one process for Prometheus, in a registry of its own.

What the database knows, and every replica tells alike, is in `fleet_figures.py`.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

import hetlora

_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_UPDATE_BYTES: Final = tuple(4**power for power in range(5, 16))  # 1 KiB to 1 GiB


class Metrics:
    """Made once for each service. No label takes the id of anything: series stay few."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        Info("hetlora_build", "What runs here.", registry=own).info({"version": hetlora.__version__})
        asked = ["route", "method"]
        self.requests = Counter(
            "hetlora_http_requests", "Requests answered.", [*asked, "status"], registry=own
        )
        self.request_seconds = Histogram(
            "hetlora_http_request_duration_seconds",
            "From a request's headers to the last byte of its answer.",
            asked,
            buckets=_REQUEST_SECONDS,
            registry=own,
        )
        self.requests_in_progress = Gauge(
            "hetlora_http_requests_in_progress", "Requests that are being answered.", registry=own
        )
        self.received_bytes = Counter(
            "hetlora_http_received_bytes", "Bytes of requests' bodies.", asked, registry=own
        )
        self.sent_bytes = Counter("hetlora_http_sent_bytes", "Bytes of answers' bodies.", asked, registry=own)
        self.update_bytes = Histogram(
            "hetlora_update_size_bytes",
            "Updates of devices that were validated and kept.",
            buckets=_UPDATE_BYTES,
            registry=own,
        )
        self.ticks = Counter("hetlora_worker_ticks", "Times the round worker looked for work.", registry=own)
        self.worker_failures = Counter(
            "hetlora_worker_failures", "Ticks of the round worker that ended in a fault.", registry=own
        )
        self.last_tick = Gauge(
            "hetlora_worker_last_tick_timestamp_seconds",
            "When the round worker last looked for work; 0 before it did, or where there is none.",
            registry=own,
        )
        self.claims = Counter("hetlora_round_claims", "Rounds taken up to be aggregated.", registry=own)
        self.commits = Counter(
            "hetlora_round_commits",
            "Aggregations by their end: committed; overtaken by another process or a stop; left_out, to be "
            "done again without an unreadable update; quarantined, without those that screens took out; "
            "given_up, the attempt is abandoned; failed, and tried again.",
            ["outcome"],
            registry=own,
        )
        for outcome in ("committed", "overtaken", "left_out", "quarantined", "given_up", "failed"):
            self.commits.labels(outcome)
        self.commit_step_seconds = Histogram(
            "hetlora_round_commit_step_seconds",
            "Steps of a commit: read the state, screen and aggregate the updates, store the result, write "
            "the tables.",
            ["step"],
            buckets=_STEP_SECONDS,
            registry=own,
        )
