"""Nodes of a Flower SuperLink that do not train, in threads of one process; run with address and count.

They use Flower's own connection, which signs each request, and push and pull as its SuperNode does; but they
look for messages every 0.2 s where that looks every 3 s, and start no process for each message. Needs flwr
and numpy alone. Ends when standard input does.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
from flwr.app import (  # type: ignore[import-not-found]
    Array,
    ArrayRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.supercore.inflatable.inflatable_object import (  # type: ignore[import-not-found]
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import (  # type: ignore[import-not-found]
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supernode.fleet_http_connection import (  # type: ignore[import-not-found]
    http_request_response,
)

PAUSE_SECONDS = 0.2


def work(address: str, number: int) -> None:
    """One node: registers, and replies to every message."""
    with http_request_response(address, True) as connection:
        while True:
            if not replied(connection, number):
                time.sleep(PAUSE_SECONDS)


def replied(connection: tuple[Any, ...], number: int) -> bool:
    """Reply to a message, if there is one."""
    _, receive, send, _, _, pull, push, confirm = connection
    received = receive()
    if received is None:
        return False
    message, tree = received
    run_id = message.metadata.run_id
    whole = pull_and_inflate_object_from_tree(
        tree,
        lambda name: pull(run_id, name),
        lambda name: confirm(run_id, name),
        return_type=Message,
    )
    whole.metadata.__dict__["_message_id"] = message.metadata.message_id
    reply = Message(moved(whole.content["arrays"], number), reply_to=whole)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    wanted, session = send(reply, get_object_tree(reply), 0.0)
    push_objects(
        get_all_nested_objects(reply),
        lambda name, data: push(run_id, session, name, data),
        object_ids_to_push=wanted,
    )
    return True


def moved(arrays: ArrayRecord, number: int) -> RecordDict:
    """Arrays after a small move, and how many examples they are of."""
    rng = np.random.default_rng(number)
    record = ArrayRecord(
        {
            name: Array(array.numpy() + 0.05 * rng.standard_normal(array.shape, np.float32))
            for name, array in arrays.items()
        }
    )
    return RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1 + number % 5})})


if __name__ == "__main__":
    for own in range(int(sys.argv[2])):
        threading.Thread(target=work, args=(sys.argv[1], own), daemon=True).start()
    sys.stdin.read()
