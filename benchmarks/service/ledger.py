"""What simulated devices sent and were told, to be held against the tables; and what must not happen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hetlora.messages.device import Receipt
from hetlora.messages.evaluation import EvaluationReport


@dataclass(slots=True)
class Ledger:
    """The devices' side of a run; `violations` are in the words that its operator reads."""

    receipts: dict[str, Receipt] = field(default_factory=dict)  # by assignment
    device_of: dict[str, str] = field(default_factory=dict)  # by assignment
    updates: dict[str, str] = field(default_factory=dict)  # SHA-256 of what was handed in, by assignment
    reports: dict[str, EvaluationReport] = field(default_factory=dict)  # by assignment, of an evaluation
    answers: Counter[str] = field(default_factory=Counter)  # by status, and of none
    violations: list[str] = field(default_factory=list)

    def note_receipt(
        self,
        device_id: str,
        receipt: Receipt,
        *,
        update_sha256: str | None = None,
        report: EvaluationReport | None = None,
    ) -> None:
        """Keep a receipt, and what it is for; what a device was told once stays so."""
        name = receipt.assignment_id
        before = self.receipts.get(name)
        if before is not None and before.state is not receipt.state:
            self.violations.append(f"receipt of {name} was {before.state} and is {receipt.state}")
        if self.device_of.setdefault(name, device_id) != device_id:
            self.violations.append(f"assignment {name} was given to two devices")
        self.receipts[name] = receipt
        if update_sha256 is not None:
            self.updates[name] = update_sha256
        if report is not None:
            self.reports[name] = report
