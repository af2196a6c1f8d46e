"""Every rule, and which laws it keeps: a stated no is as much a fact about a rule as a yes.

To a rule's line belongs what its paper implies, not what a test once showed.
"""

from __future__ import annotations

from dataclasses import dataclass

from hetlora.messages.rules import (
    AnyRule,
    DeerRule,
    FedExRule,
    FedLoruRule,
    FedSaRule,
    FedSbRule,
    FfaRule,
    FlascRule,
    FlexLoraRule,
    FloraRule,
    FloristRule,
    FsLoraRule,
    HetLoraRule,
    LoraA2Rule,
    LoraFairRule,
    RaFloraRule,
    RblaRule,
    ReplicationRule,
    ResidualExactRule,
    RoLoraRule,
    ZeroPadRule,
)


@dataclass(frozen=True, slots=True)
class Case:
    """The laws of one rule.

    one_client: one client at the run's rank gets its own product back.
    idle: a cohort of unequal ranks that learned nothing changes nothing.
    padded: an update padded with zeros counts as the update itself.
    gauge: (B Q, Q^-1 A) counts as (B, A) for any invertible Q.
    mean: at equal ranks the result is the mean of the "factors" or the "products", cut to the run's rank.
    keeps_tail: over many idle rounds with few wide clients, high ranks keep their energy; None: a part.
    equal_ranks: devices may take the run's rank only.
    """

    rule: AnyRule
    one_client: bool
    idle: bool
    padded: bool
    gauge: bool
    mean: str | None
    keeps_tail: bool | None
    equal_ranks: bool = False


DENSE_FLASC = FlascRule(weights="examples", download_density=1.0, upload_density=1.0)

CASES = {
    "hetlora": Case(HetLoraRule(), True, False, True, False, None, False),
    "hetlora_by_module": Case(HetLoraRule(weights="module"), True, False, True, False, None, False),
    "zero_pad": Case(ZeroPadRule(), True, False, True, False, "factors", False),
    "zero_pad_uniform": Case(ZeroPadRule(weights="uniform"), True, False, True, False, None, False),
    "rbla": Case(RblaRule(), True, True, False, False, "factors", True),
    "rbla_guarded": Case(RblaRule(quorum=2, shrinkage=1.0), False, True, False, False, None, True),
    # The server keeps twice the run's rank: what one client was not sent of it stays.
    "residual_exact": Case(ResidualExactRule(), False, True, True, True, None, True),
    "residual_exact_narrow": Case(ResidualExactRule(state_rank=4), True, True, True, True, "products", True),
    "residual_exact_folded": Case(
        ResidualExactRule(fold=True, allocate=True), True, True, True, True, None, True
    ),
    "replication": Case(ReplicationRule(), True, True, False, False, "factors", True),
    "replication_uniform": Case(ReplicationRule(weights="uniform"), True, True, False, False, None, True),
    "fedloru": Case(FedLoruRule(), True, False, True, False, "factors", False),
    # What is folded away every round is never averaged again.
    "fedloru_every_round": Case(FedLoruRule(every_rounds=1), True, True, True, False, None, True),
    "ffa": Case(FfaRule(), True, True, False, False, "factors", True),
    "rolora": Case(RoLoraRule(), True, True, False, False, "factors", True),
    # Of the server's view alone, in which lora_B is the initial one for good.
    "fedsa": Case(FedSaRule(), True, True, False, False, "factors", True),
    "deer": Case(DeerRule(), True, True, True, False, "factors", True, equal_ranks=True),
    "lora_a2": Case(LoraA2Rule(), True, True, True, False, "factors", True),
    "fslora": Case(FsLoraRule(), True, True, True, False, None, True),
    "fslora_by_examples": Case(FsLoraRule(weights="examples"), True, True, True, False, "factors", True),
    # What one client was not sent of the global factors stays.
    "flasc": Case(FlascRule(), False, True, True, False, None, True),
    "flasc_dense": Case(DENSE_FLASC, True, True, True, False, "factors", True),
    "fed_sb": Case(FedSbRule(), True, True, False, False, "factors", True),
    # Where a rank is no level, as 3 here, devices own a band of which they lack ranks; these count as zeros.
    "raflora": Case(RaFloraRule(), True, False, False, False, "products", True),
    "raflora_by_rank": Case(RaFloraRule(levels=(1, 2, 3, 4)), True, True, False, False, "products", True),
    # With less than all of the energy a round cuts what no device changed: see test_florist.py.
    "florist": Case(FloristRule(energy=1.0), True, False, True, True, "products", False),
    "flora": Case(FloraRule(), True, True, True, True, None, True),
    # Of the adapter and what is frozen together, which are the mean product, not cut to the rank.
    "fedex": Case(FedExRule(), True, False, True, True, None, None),
    "lora_fair": Case(LoraFairRule(), True, False, True, False, None, False),
    "flexlora": Case(FlexLoraRule(), True, False, True, True, "products", False),
}
