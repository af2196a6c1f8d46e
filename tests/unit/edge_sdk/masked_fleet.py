"""Offers with masks, and the cohort that a device is in: four others at ranks of their own."""

from __future__ import annotations

import threading

import httpx
import numpy as np
from fake_bundle import SPEC, adapter_of
from fake_service import FakeService
from numpy.typing import NDArray

from edge_sdk.client import EdgeClient
from edge_sdk.session.visit import Visit
from hetlora.adapter import Adapter
from hetlora.algebra import delta_norm, zero_pad
from hetlora.messages.masking import MaskingTerms
from hetlora.tensors import to_tensors
from hetlora.testing.fake_cohort import FakeCohort

# Three steps of sgd bring lora_B, 0.25 at first, seven eighths of the way to one.
TRAINED = adapter_of(4, 0.5, 1 - 0.75 / 8)
TERMS = MaskingTerms(rank=4, weighing="norm", largest=1024.0)
OTHERS = (adapter_of(1, 0.5, 2.0), adapter_of(4, -0.25, 1.0), adapter_of(2, 1.0, 0.125), adapter_of(3))


class Hurry(threading.Event):
    """Others are waited for without waiting."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.0)


def with_masks(service: FakeService, *, terms: MaskingTerms = TERMS, gone: int = 1) -> FakeCohort:
    """Have the service offer its work with masks, among four others, the last of whom are gone."""
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"masking": terms})
    service.cohort = FakeCohort(terms, SPEC, OTHERS, gone=gone)
    return service.cohort


def merged(*updates: Adapter) -> dict[str, NDArray[np.float64]]:
    """HetLoRA over updates in the plain: padded, weighted by the norm of B A."""
    norms = [delta_norm(own) for own in updates]
    padded = [to_tensors(zero_pad(own, 4)) for own in updates]
    return {
        key: np.average([own[key].astype(float) for own in padded], axis=0, weights=norms)
        for key in padded[0]
    }


def visit(client: EdgeClient) -> Visit:
    return client.run_once(stop=Hurry())


def assert_is_mean_of(cohort: FakeCohort, *updates: Adapter) -> None:
    mean = cohort.mean()
    assert mean is not None
    for key, expected in merged(*updates).items():
        np.testing.assert_allclose(to_tensors(mean)[key], expected, atol=1e-6)


class Killed(BaseException):
    """The process ends."""


def killed_at(service: FakeService, number: int, *, after: bool) -> httpx.MockTransport:
    """The line of a device whose process ends with this request to `:mask`, update or `:submit`."""
    seen = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        is_of_masks = request.url.path.endswith((":mask", "/update", ":submit"))
        seen += is_of_masks
        if is_of_masks and seen == number and not after:
            raise Killed
        told = service.http.handler(request)
        if is_of_masks and seen == number:
            raise Killed
        assert isinstance(told, httpx.Response)
        return told

    return httpx.MockTransport(answer)
