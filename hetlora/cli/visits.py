"""How `hetlora device run` tells of its visits: a moving status line and a line a visit, or JSON."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from hetlora.cli.device_adapter import in_words
from hetlora.cli.output import plain, print_json, say, stderr

if TYPE_CHECKING:
    from edge_sdk import Event, Visit

# Of outcomes that came before an offer.
_WORDS: Final = {"no_work": "no work", "not_allowed": "not now"}


class VisitTeller:
    """Tells of events and visits; use as a context manager, which shows the status line meanwhile."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last_reason = ""
        self._status = stderr.status("")

    def __enter__(self) -> Self:
        if not self._as_json:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def on_event(self, event: Event) -> None:
        """Move the status line; with JSON only visits are told."""
        from edge_sdk import (
            Adopted,
            AwaitingOthers,
            CheckedIn,
            Downloaded,
            GivenUp,
            HeldOutScored,
            NotAdopted,
            RankChosen,
            RankPruned,
            Resumed,
            StepDone,
        )

        if self._as_json:
            return
        match event:
            case CheckedIn(offer, reason) if offer is None:
                self._status.update(plain(f"waiting: {reason}"))
            case AwaitingOthers(reason):
                self._status.update(plain(f"waiting: {reason}"))
            case Downloaded(name, size_bytes):
                self._status.update(plain(f"downloaded {name}, {size_bytes / 1e6:.1f} MB"))
            case StepDone(step, steps, loss):
                self._status.update(f"step {step} of {steps}, loss {loss:.3f}")
            case HeldOutScored(when, report):
                say(f"loss on {report.example_count} held-out examples {when} training: {report.loss:.3f}")
            case RankChosen(choice, variant):
                limit = "run" if choice.bound_by == "offer" else choice.bound_by
                bundle = "" if variant is None else f" with the variant {variant[:12]}"
                say(f"rank {choice.rank}{bundle}: the limit is the {limit}'s")
            case RankPruned(old_rank, new_rank):
                say(f"rank {old_rank} pruned to {new_rank}")
            case Resumed(step):
                say(f"training goes on after step {step}")
            case GivenUp(assignment_id):
                say(f"{assignment_id} is no longer this device's: what was trained for it is dropped")
            case Adopted(comparison) if comparison.new_loss is not None:
                say(in_words(comparison))
            case NotAdopted(comparison):
                say(in_words(comparison))
            case _:
                pass

    def on_visit(self, visit: Visit) -> None:
        """One line or JSON object for what a visit came to; the same reason for no work is told once."""
        if self._as_json:
            print_json(_as_object(visit))
        elif visit.offer is not None:
            self._last_reason = ""
            evaluated = {"evaluate": "evaluation of ", "adopt": "rollout of "}.get(visit.offer.kind, "")
            say(f"{evaluated}round {visit.offer.round_index + 1}: {visit.outcome}, {visit.reason}")
        elif visit.reason != self._last_reason:
            self._last_reason = visit.reason
            say(f"{_WORDS.get(visit.outcome, visit.outcome)}: {visit.reason}")


def _as_object(visit: Visit) -> dict[str, object]:
    return {
        "outcome": visit.outcome,
        "reason": visit.reason,
        "code": visit.code,
        "retry_after_seconds": visit.retry_after_seconds,
        "kind": visit.offer.kind if visit.offer else None,
        "round_index": visit.offer.round_index if visit.offer else None,
        "rank": visit.choice.rank if visit.choice else None,
        "report": visit.report.model_dump(mode="json") if visit.report else None,
        "evaluation": visit.evaluation.model_dump(mode="json") if visit.evaluation else None,
        "adoption": visit.adoption.model_dump(mode="json") if visit.adoption else None,
    }
