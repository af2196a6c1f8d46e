"""What a training step costs, as the export counts it and the planner of a device reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from hetlora.messages.common import Count, Message


@dataclass(frozen=True, slots=True)
class StepSize:
    """What the cost of a training step depends on: texts, tokens of each, rank, rows of logits at a time."""

    batch: int
    tokens: int
    rank: int
    chunk_rows: int

    @classmethod
    def of(cls, *, batch: int, tokens: int, rank: int, most_chunk_rows: int) -> Self:
        """A step whose logits are made in as few chunks as can be, all of one size; 0 is without chunks."""
        rows = batch * tokens
        chunks = -(-rows // most_chunk_rows) if most_chunk_rows else 0
        return cls(batch, tokens, rank, -(-rows // chunks) if chunks else 0)

    @property
    def rows(self) -> int:
        """The tokens of all texts."""
        return self.batch * self.tokens


class StepCost(Message):
    """A quantity of one training step as a sum of terms in its sizes."""

    fixed: Count = 0
    per_text: Count = 0
    per_token: Count = 0
    per_token_pair: Count = 0  # of two tokens of one text, or one with itself: attention
    per_rank: Count = 0
    per_token_per_rank: Count = 0
    per_chunk_row: Count = 0

    def at(self, step: StepSize) -> int:
        """The quantity of one step."""
        return (
            self.fixed
            + self.per_text * step.batch
            + self.per_token * step.rows
            + self.per_token_pair * step.rows * step.tokens
            + self.per_rank * step.rank
            + self.per_token_per_rank * step.rows * step.rank
            + self.per_chunk_row * step.chunk_rows
        )


class CostModel(Message):
    """What one training step of a bundle costs; docs/adr/0010-cost-model.md.

    `flops` are those of matrix products, `written_bytes` what all nodes write, which is where the time of the
    others goes. `live_bytes` are moments of a step: what tensors take at the peak is the largest of them. A
    step reads `base_weight_bytes` of the frozen weights, and runs `graph_nodes`. An adapter of rank r takes
    r * adapter_bytes_per_rank.
    """

    flops: StepCost
    written_bytes: StepCost
    live_bytes: tuple[StepCost, ...] = Field(min_length=1)
    most_chunk_rows: Count  # whose logits are made at a time; 0 where they are not made in chunks
    graph_nodes: Count
    base_weight_bytes: Count
    adapter_bytes_per_rank: Count

    @model_validator(mode="after")
    def _costs_something(self) -> Self:
        step = self.step(batch=1, tokens=1, rank=1)
        if not (self.flops.at(step) or self.written_bytes.at(step)):  # a forecast is divided by its seconds
            raise ValueError("a step that computes nothing and writes nothing takes no time")
        return self

    def step(self, *, batch: int, tokens: int, rank: int) -> StepSize:
        """The sizes of a step over `batch` texts of `tokens` tokens."""
        return StepSize.of(batch=batch, tokens=tokens, rank=rank, most_chunk_rows=self.most_chunk_rows)

    def peak_live_bytes(self, step: StepSize) -> int:
        """What the tensors of a step take at its peak, without weights and adapter."""
        return max(moment.at(step) for moment in self.live_bytes)
