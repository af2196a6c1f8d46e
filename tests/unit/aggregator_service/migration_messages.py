"""The JSON of an old database: what devices and operators said, as it was stored when its column came."""

from __future__ import annotations

from typing import Final

from service_bundle import make_adapter

from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes

# Of the one update that was handed in, again and again.
UPDATE: Final = adapter_to_bytes(make_adapter(1, 3.0))
# As revision 0001 wrote it: a rule had no settings.
OLD_SETTINGS: Final = {
    "rounds": 2,
    "goal_count": 1,
    "over_selection": 2.0,
    "minimum_share": 0.5,
    "report_window_seconds": 3600.0,
    "lease_seconds": 900.0,
    "rule": "hetlora",
    "min_rank": 1,
    "max_rank": 2,
    "seed": 0,
    "training": {
        "steps": 10,
        "batch_size": 16,
        "learning_rate": 0.001,
        "max_tokens": 64,
        "pruning_decay": 0.99,
        "pruning_penalty": 0.001,
    },
}
CAPABILITIES: Final = {
    "source": "given",
    "cores": 4,
    "memory_total_bytes": 2**33,
    "memory_available_bytes": 2**32,
    "matmul_flops_per_second": 1e10,
    "disk_free_bytes": 2**34,
}
REPORT: Final = {
    "update": {"sha256": sha256_of(UPDATE), "size_bytes": len(UPDATE)},
    "rank": 1,
    "example_count": 7,
    "steps": 10,
    "first_loss": 1.5,
    "last_loss": 0.5,
    "training_seconds": 2.0,
    "peak_memory_bytes": 2**20,
    "downloaded_bytes": 900,
}
ADAPTATION: Final = {
    "trained": "lora_A",
    "private_lora_B": False,
    "lora_B_rate": 5.0,
    "selected_ranks": 1,
    "upload_density": 1.0,
    "ranks": None,
    "amplification": 1.0,
}
FIGURES: Final = {
    "example_count": 30,
    "loss": 0.5,
    "device_loss": 0.75,
    "device_loss_deviation": 0.25,
    "accuracy": 0.875,
    "device_accuracy": 0.75,
    "device_accuracy_deviation": 0.125,
}
EVALUATION_REPORT: Final = {"example_count": 10, "loss": 0.5, "correct_count": 9}
FILTER: Final = {"conditions": [{"field": "label.site", "comparison": "is", "value": "lab"}]}
ROLLOUT_SETTINGS: Final = {
    "stages": [
        {
            "share": share,
            "least_reports": 3,
            "most_failed_share": 0.25,
            "most_loss_increase": 0.5,
            "settle_seconds": 60.0,
        }
        for share in (0.125, 1.0)
    ],
    "freeze": [{"begins_at": "2026-12-24T12:00:00Z", "ends_at": "2026-12-27T00:00:00Z"}],
    "lease_seconds": 3600.0,
}
DECIDED: Final = {
    "stages": [
        {
            "stage": 1,
            "reports": 4,
            "failed_share": 0.25,
            "compared": 3,
            "loss_increase": -0.125,
            "outcome": "moved_on",
        }
    ]
}
SEALED: Final = {"0": "A" * 126 + "==", "1": "B" * 126 + "=="}
REVEAL: Final = {"step": "reveal", "seeds": [{"device": 0, "share": "A" * 44}], "mask_keys": []}
