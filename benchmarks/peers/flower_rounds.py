"""Rounds of Flower's own server, as the ServerApp that a SuperLink runs; needs flwr and numpy alone.

Each round sends a record of arrays to the next nodes in turn, waits for the replies of all of them, and takes
Flower's weighted mean as the next record. The file `begun` is there once the first round begins, and `out`
with one JSON object once the last has ended.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import (  # type: ignore[import-not-found]
    Array,
    ArrayRecord,
    RecordDict,
)
from flwr.serverapp import ServerApp  # type: ignore[import-not-found]
from flwr.serverapp.strategy.strategy_utils import (  # type: ignore[import-not-found]
    aggregate_arrayrecords,
)

MODULES = 4
PAUSE_SECONDS = 0.1

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Any, context: Any) -> None:
    """All rounds, once every node is there."""
    config = context.run_config
    record = first_record(config["features"], config["rank"])
    while len(nodes := sorted(grid.get_node_ids())) < config["nodes"]:
        time.sleep(PAUSE_SECONDS)
    Path(config["begun"]).touch()
    started, count = time.perf_counter(), 0
    for index in range(config["rounds"]):
        first = index * config["goal_count"]
        cohort = [nodes[(first + place) % len(nodes)] for place in range(config["goal_count"])]
        replies = asked(grid, record, cohort, str(index))
        record = aggregate_arrayrecords(replies, "num-examples")
        count += len(replies)
    told = {"replies": count, "seconds": time.perf_counter() - started}
    partial = Path(config["out"] + ".part")
    partial.write_text(json.dumps(told))
    partial.rename(config["out"])


def first_record(features: int, rank: int) -> ArrayRecord:
    """The factors of four square layers, all zero."""
    arrays = {}
    for number in range(MODULES):
        arrays[f"layer.{number}.lora_A"] = Array(np.zeros((rank, features), np.float32))
        arrays[f"layer.{number}.lora_B"] = Array(np.zeros((features, rank), np.float32))
    return ArrayRecord(arrays)


def asked(grid: Any, record: ArrayRecord, nodes: list[int], group: str) -> list[RecordDict]:
    """The replies of some nodes to a record."""
    messages = [grid.create_message(RecordDict({"arrays": record}), "train", node, group) for node in nodes]
    waiting = set(grid.push_messages(messages))
    replies = []
    while waiting:
        # Flower's own `send_and_receive` looks every three seconds.
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            replies.append(reply.content)
        if waiting:
            time.sleep(PAUSE_SECONDS)
    return replies
