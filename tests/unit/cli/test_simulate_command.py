"""`hetlora simulate`, as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.service.tiny_bundle import tiny_spec, write_tiny_bundle
