"""What Prometheus is told. With several workers, their numbers are added up.

`PROMETHEUS_MULTIPROC_DIR` must be set before this module is imported when there are several
workers (`server.run` does).
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

REQUESTS = Counter(
    "personas_http_requests", "Requests that were answered", ["method", "route", "status"]
)
SECONDS = Histogram(
    "personas_http_request_seconds",
    "Seconds until a request was answered",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
MESSAGES = Counter("personas_messages", "Messages that are durable", ["space", "source"])
REFUSED = Counter(
    "personas_messages_refused",
    "Messages of a batch that were refused alone; they are in rejected_events",
    ["space", "source", "reason"],
)
SYNC_SECONDS = Histogram(
    "personas_journal_sync_seconds",
    "Seconds that one synced write of the journal took",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
WAITING_BYTES = Gauge(
    "personas_journal_waiting_bytes",
    "Bytes of messages in memory that are not durable yet",
    multiprocess_mode="livesum",
)


def exposition() -> tuple[bytes, str]:
    """All numbers as text, and its content type."""
    registry, folder = REGISTRY, os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        for path in Path(folder).glob("gauge_live*_*.db"):
            if not psutil.pid_exists(pid := int(path.stem.rpartition("_")[2])):
                mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
