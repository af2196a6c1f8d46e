"""Follow one run to its end: the live table, and the accuracy of each adapter as it is committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from rich.console import Console
from rich.live import Live

from benchmarks.demo.scoring import Scorer
from hetlora.adapter import AdapterSpec
from hetlora.cli.operator import Operator
from hetlora.cli.run_table import round_table
from hetlora.errors import ServiceFailed
from hetlora.states import RunState, is_final
from hetlora.tensors import adapter_from_bytes

EVERY_SECONDS: Final = 0.5


def watch(
    operator: Operator,
    run_id: str,
    spec: AdapterSpec,
    scorer: Scorer,
    untrained: float,
    console: Console,
    check_fleet: Callable[[], None],
) -> list[float]:
    """Show a run until it ends, and return the accuracies from the untrained model's to the last round's.

    Raises:
        ServiceFailed: the run did not complete, or `check_fleet` says that a process died.
    """
    accuracies = {-1: untrained}
    scoring: dict[int, Future[float]] = {}
    # One thread scores, so that the table stays alive meanwhile.
    with ThreadPoolExecutor(1) as pool, Live(console=console, auto_refresh=False) as live:
        while True:
            run = operator.run(run_id)
            check_fleet()
            for version in operator.adapters(run_id):
                if version.round_index >= 0 and version.round_index not in scoring:
                    adapter = adapter_from_bytes(operator.adapter_bytes(version.version), spec)
                    scoring[version.round_index] = pool.submit(scorer.accuracy, adapter)
            accuracies |= {index: score.result() for index, score in scoring.items() if score.done()}
            rounds = list(operator.rounds(run_id))
            newest = rounds[-1].round_index if rounds else None
            assignments = list(operator.assignments(run_id, newest))
            live.update(round_table(run, rounds, assignments, accuracies), refresh=True)
            if is_final(run.state) and len(accuracies) > len(scoring):
                break
            time.sleep(EVERY_SECONDS)
    console.print()  # a live display ends without a line break where there is no terminal
    if run.state is not RunState.COMPLETED:
        raise ServiceFailed("the run did not complete", got=f"{run.state}: {run.reason}")
    return [accuracies[index] for index in sorted(accuracies)]
