"""What runs on a device: check in, train at the rank that the device can afford, upload, report.

Public names are loaded on first use (PEP 562), so that `import edge_sdk` is light and needs neither a
training runtime nor a network library.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_sdk.adapters.adapters import Adapters
    from edge_sdk.adapters.classification import Classified, TextClassifier
    from edge_sdk.adapters.generation import Generated, TextGenerator
    from edge_sdk.adapters.index import Comparison, StoredAdapter
    from edge_sdk.adapters.policy import Adoption
    from edge_sdk.batching.tokens import TextEncoder
    from edge_sdk.client import EdgeClient
    from edge_sdk.conditions import Told
    from edge_sdk.events import (
        Adopted,
        AwaitingApproval,
        AwaitingOthers,
        CheckedIn,
        Downloaded,
        Evaluated,
        Event,
        GivenBack,
        GivenUp,
        HeldOutScored,
        NotAdopted,
        RankChosen,
        RankPruned,
        Resumed,
        StepDone,
        Submitted,
        Uploaded,
    )
    from edge_sdk.examples import (
        AnyExample,
        ChatExample,
        ChatTurn,
        Example,
        ExampleStore,
        ImageExample,
        StoreKey,
        TextExample,
    )
    from edge_sdk.planning.planner import RankChoice
    from edge_sdk.probe import measure_capabilities
    from edge_sdk.runtimes import open_model, runtime_named
    from edge_sdk.runtimes.base import RuntimeFactory
    from edge_sdk.session.visit import Visit
    from hetlora.messages.conditions import Conditions
    from hetlora.messages.device import CapabilityReport, Offer, Receipt, Report
    from hetlora.messages.evaluation import EvaluationReport

# A library stays silent until the app configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "Adapters": "edge_sdk.adapters.adapters",
    "Adopted": "edge_sdk.events",
    "Adoption": "edge_sdk.adapters.policy",
    "AnyExample": "edge_sdk.examples",
    "AwaitingApproval": "edge_sdk.events",
    "AwaitingOthers": "edge_sdk.events",
    "CapabilityReport": "hetlora.messages.device",
    "ChatExample": "edge_sdk.examples",
    "ChatTurn": "edge_sdk.examples",
    "CheckedIn": "edge_sdk.events",
    "Classified": "edge_sdk.adapters.classification",
    "Comparison": "edge_sdk.adapters.index",
    "Conditions": "hetlora.messages.conditions",
    "Downloaded": "edge_sdk.events",
    "EdgeClient": "edge_sdk.client",
    "Evaluated": "edge_sdk.events",
    "EvaluationReport": "hetlora.messages.evaluation",
    "Event": "edge_sdk.events",
    "Example": "edge_sdk.examples",
    "ExampleStore": "edge_sdk.examples",
    "Generated": "edge_sdk.adapters.generation",
    "GivenBack": "edge_sdk.events",
    "GivenUp": "edge_sdk.events",
    "HeldOutScored": "edge_sdk.events",
    "ImageExample": "edge_sdk.examples",
    "NotAdopted": "edge_sdk.events",
    "Offer": "hetlora.messages.device",
    "RankChoice": "edge_sdk.planning.planner",
    "RankChosen": "edge_sdk.events",
    "RankPruned": "edge_sdk.events",
    "Receipt": "hetlora.messages.device",
    "Report": "hetlora.messages.device",
    "Resumed": "edge_sdk.events",
    "RuntimeFactory": "edge_sdk.runtimes.base",
    "StepDone": "edge_sdk.events",
    "StoreKey": "edge_sdk.examples",
    "StoredAdapter": "edge_sdk.adapters.index",
    "Submitted": "edge_sdk.events",
    "TextClassifier": "edge_sdk.adapters.classification",
    "TextEncoder": "edge_sdk.batching.tokens",
    "TextExample": "edge_sdk.examples",
    "TextGenerator": "edge_sdk.adapters.generation",
    "Told": "edge_sdk.conditions",
    "Uploaded": "edge_sdk.events",
    "Visit": "edge_sdk.session.visit",
    "measure_capabilities": "edge_sdk.probe",
    "open_model": "edge_sdk.runtimes",
    "runtime_named": "edge_sdk.runtimes",
}

__all__ = [
    "Adapters",
    "Adopted",
    "Adoption",
    "AnyExample",
    "AwaitingApproval",
    "AwaitingOthers",
    "CapabilityReport",
    "ChatExample",
    "ChatTurn",
    "CheckedIn",
    "Classified",
    "Comparison",
    "Conditions",
    "Downloaded",
    "EdgeClient",
    "Evaluated",
    "EvaluationReport",
    "Event",
    "Example",
    "ExampleStore",
    "Generated",
    "GivenBack",
    "GivenUp",
    "HeldOutScored",
    "ImageExample",
    "NotAdopted",
    "Offer",
    "RankChoice",
    "RankChosen",
    "RankPruned",
    "Receipt",
    "Report",
    "Resumed",
    "RuntimeFactory",
    "StepDone",
    "StoreKey",
    "StoredAdapter",
    "Submitted",
    "TextClassifier",
    "TextEncoder",
    "TextExample",
    "TextGenerator",
    "Told",
    "Uploaded",
    "Visit",
    "measure_capabilities",
    "open_model",
    "runtime_named",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_sdk' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
