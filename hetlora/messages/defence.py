"""How a run is defended; `aggregator_service/aggregation/robust/` computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from hetlora.messages.common import Identifier, Message, PositiveCount
from hetlora.messages.only_with import OnlyWith, check_all_used

Method = Literal["none", "krum", "multi_krum", "geometric_median", "fltrust", "trimmed_mean", "median"]
METHODS: Final[Mapping[str, str]] = {
    "none": "No method: clipping or a quorum alone, or no defence at all.",
    "krum": "Keeps the one update that is nearest to its neighbours (Blanchard et al., NeurIPS 2017).",
    "multi_krum": "Keeps those that are nearest to their neighbours (Blanchard et al., NeurIPS 2017).",
    "geometric_median": "Weighs updates so that their mean is the geometric median (arXiv 1912.13445).",
    "fltrust": "Weighs updates by their cosine with the trusted device's, at its length (arXiv 2012.13995).",
    "trimmed_mean": "Leaves out each number's smallest and largest values, rank by rank (arXiv 1803.01498).",
    "median": "Takes each number's median, rank by rank over its owners (arXiv 1803.01498).",
}

SCREENING: Final = ("krum", "multi_krum", "geometric_median")
BY_COORDINATE: Final = ("trimmed_mean", "median")
# Those that look at all updates of a round at once.
COMPARING: Final = (*SCREENING, *BY_COORDINATE)


class Defence(Message):
    """What stands between hostile updates and the rule; norms and distances are of changes of products B A.

    With a method every update counts as one example. Krum and the geometric median want `clip` beside them
    under rules that average factors: they see products alone, and a small product can have large factors.
    FLTrust limits factors by itself. The trimmed mean and the median want 3 owners of a rank in any case.
    """

    method: Method = Field(
        default="none", description="how updates are screened, or what they moved replaced"
    )
    clip: Annotated[bool, OnlyWith(("none", *COMPARING))] = Field(
        default=False,
        description="cut changes, movements of factors and example counts to clip_factor times their medians",
    )
    clip_factor: float = Field(
        default=2.0, ge=1e-3, le=1e6, description="of clip; with fltrust, over the trusted device's movement"
    )
    hostile_share: Annotated[float, OnlyWith(("krum", "multi_krum", "trimmed_mean"))] = Field(
        default=0.2, ge=0, lt=0.5, description="share of hostile updates that the method is to withstand"
    )
    max_updates: Annotated[PositiveCount, OnlyWith(COMPARING)] = Field(
        default=1024, description="a round of more is refused, as all its updates are compared"
    )
    quorum: PositiveCount = Field(
        default=1,
        description="no update moves a rank that fewer hold; below 3, one wide device can own it",
    )
    trusted_device: Annotated[Identifier | None, OnlyWith(("fltrust",))] = Field(
        default=None,
        description="id of the device that others are measured by; the operator's, on clean data",
    )

    @model_validator(mode="after")
    def _does_something_with_all_of_it(self) -> Self:
        check_all_used(self, "method")
        if self.clip_factor != type(self).model_fields["clip_factor"].default and not (
            self.clip or self.method == "fltrust"
        ):
            raise ValueError("clip_factor does nothing without clip, or the method fltrust")
        return self

    @model_validator(mode="after")
    def _has_whom_it_trusts(self) -> Self:
        if self.method == "fltrust" and self.trusted_device is None:
            raise ValueError("fltrust needs a trusted_device")
        return self
