"""A chat that takes on how its user wants to be answered: it talks while the device trains behind it.

    python examples/personalise_chat.py URL POPULATION FOLDER

Lines are answered; "=" and a text says what the last answer should have been, "forget" removes all of these.
"""

from __future__ import annotations

import os
import sys
import threading

from edge_sdk import Adopted, ChatExample, Conditions, EdgeClient, Event
from hetlora.errors import NoAdapter


def show(event: Event) -> None:
    """Of what goes on behind the chat only that it answers otherwise from now on."""
    if isinstance(event, Adopted):
        print(f"[learnt from round {event.comparison.new.round_index + 1}]", flush=True)


def answer(client: EdgeClient, question: str) -> str:
    """What the model says under the adapter in use; neither side of it leaves this device."""
    try:
        return client.adapters.generator().answer([("user", question)], max_new_tokens=32).text
    except NoAdapter:
        return "(nothing learnt yet)"


def talk(client: EdgeClient) -> None:
    """Answer each line, and keep what the user would rather have heard."""
    question = ""
    for line in map(str.strip, sys.stdin):
        if line == "forget":
            client.examples.clear()
        elif line.startswith("=") and question:
            client.examples.put(ChatExample.of([("user", question), ("assistant", line[1:])], key=question))
        elif line:
            question = line
            print(answer(client, question), flush=True)


if __name__ == "__main__":
    with EdgeClient(
        *sys.argv[1:4],
        enrolment_token=os.environ.get("HETLORA_ENROLMENT_TOKEN"),
        conditions=Conditions(charging=True),  # beside what a run asks for
        on_event=show,
    ) as client:
        stop = threading.Event()
        training = threading.Thread(target=client.run_forever, kwargs={"stop": stop})
        training.start()
        try:
            talk(client)
        finally:
            stop.set()  # ends training with the step that is under way
            training.join()
