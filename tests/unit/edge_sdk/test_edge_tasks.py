"""Visits for tasks other than classifying texts. The device holds two pairs of words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_bundle import END
from fake_runtime import Opened
from fake_service import FakeService

from edge_sdk.client import EdgeClient
from edge_sdk.examples import ChatExample, TextExample
from edge_sdk.runtimes.base import Batch

MakeClient = Callable[..., EdgeClient]


@pytest.fixture
def service(request: pytest.FixtureRequest) -> FakeService:
    return FakeService(task=request.param)


def _first_batch(make_client: MakeClient) -> Batch:
    """What the runtime is given first: both examples fit in one batch."""
    opened = Opened()
    client = make_client(runtime=opened)
    client.examples.put("snow", "ice", key="first")
    client.examples.put("sun and", "sand", key="second")
    assert client.run_once().outcome == "accepted"
    return opened.runtimes[0].batches[0]


@pytest.mark.parametrize("service", ["text-generation"], indirect=True)
def test_language_model_learns_to_go_on_with_the_text(service: FakeService, make_client: MakeClient) -> None:
    batch = _first_batch(make_client)
    order = np.argsort(batch["input_ids"][:, 0])
    # snow 2, ice 3, sun 4, sand 5, and 6: the texts, what they go on with, and the end.
    assert batch["input_ids"][order].tolist() == [[2, 3, END, 0], [4, 6, 5, END]]
    assert batch["labels"][order].tolist() == [[-100, 3, END, -100], [-100, -100, 5, END]]


@pytest.mark.parametrize("service", ["text2text-generation"], indirect=True)
def test_answer_is_learned_apart_from_its_text(service: FakeService, make_client: MakeClient) -> None:
    batch = _first_batch(make_client)
    order = np.argsort(batch["input_ids"][:, 0])
    assert batch["input_ids"][order].tolist() == [[2, 0], [4, 6]]
    assert batch["labels"][order].tolist() == [[3, END], [5, END]]


@pytest.mark.parametrize("service", ["image-classification"], indirect=True)
def test_model_of_images_is_given_back_before_it_is_downloaded_where_texts_are_held(
    service: FakeService, make_client: MakeClient
) -> None:
    visit = make_client().run_once()
    assert (visit.outcome, visit.code) == ("failed", "data_unreadable")
    assert [failure.message for failure in service.failures] == [
        "the device holds examples of kinds that the task does not learn from"
    ]
    assert service.fetched() == ["manifest.json"]


@pytest.mark.parametrize("service", ["text-generation"], indirect=True)
def test_language_model_learns_from_chats_and_plain_text_beside(
    service: FakeService, make_client: MakeClient
) -> None:
    opened = Opened()
    client = make_client(runtime=opened)
    client.examples.clear()
    client.examples.put(ChatExample.of([("user", "snow"), ("assistant", "ice")]))
    client.examples.put(TextExample("sun and sand"))
    assert client.run_once().outcome == "accepted"
    batch = opened.runtimes[0].batches[0]
    order = np.argsort(batch["input_ids"][:, 0])
    # "user:" and "assistant:" are two words each that the tokenizer does not know, 1.
    assert batch["input_ids"][order].tolist() == [[1, 1, 2, 1, 1, 3, END], [4, 6, 5, END, 0, 0, 0]]
    assert batch["labels"][order].tolist() == [[*[-100] * 5, 3, END], [4, 6, 5, END, -100, -100, -100]]
