"""One file for each rule, which opens with its paper, its equations and its steps; here they are found."""

from __future__ import annotations

from typing import Any, Final

from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.rules.deer import Deer
from aggregator_service.aggregation.rules.fed_sb import FedSb
from aggregator_service.aggregation.rules.fedex import FedEx
from aggregator_service.aggregation.rules.fedloru import FedLoru
from aggregator_service.aggregation.rules.fedsa import FedSa
from aggregator_service.aggregation.rules.ffa import Ffa
from aggregator_service.aggregation.rules.flasc import Flasc
from aggregator_service.aggregation.rules.flexlora import FlexLora
from aggregator_service.aggregation.rules.flora import Flora
from aggregator_service.aggregation.rules.florist import Florist
from aggregator_service.aggregation.rules.fslora import FsLora
from aggregator_service.aggregation.rules.hetlora import HetLora
from aggregator_service.aggregation.rules.lora_a2 import LoraA2
from aggregator_service.aggregation.rules.lora_fair import LoraFair
from aggregator_service.aggregation.rules.raflora import RaFlora
from aggregator_service.aggregation.rules.rbla import Rbla
from aggregator_service.aggregation.rules.replication import Replication
from aggregator_service.aggregation.rules.residual_exact import ResidualExact
from aggregator_service.aggregation.rules.rolora import RoLora
from aggregator_service.aggregation.rules.zero_pad import ZeroPad
from aggregator_service.aggregation.stacks import stacked
from hetlora.adapter import Adapter
from hetlora.messages import rules as settings
from hetlora.messages.rules import AnyRule

RULES: Final[dict[type[AnyRule], type[RoundRule[Any]]]] = {
    settings.HetLoraRule: HetLora,
    settings.ZeroPadRule: ZeroPad,
    settings.RblaRule: Rbla,
    settings.FlexLoraRule: FlexLora,
    settings.ReplicationRule: Replication,
    settings.FfaRule: Ffa,
    settings.RoLoraRule: RoLora,
    settings.FedLoruRule: FedLoru,
    settings.FedSaRule: FedSa,
    settings.DeerRule: Deer,
    settings.LoraA2Rule: LoraA2,
    settings.FedSbRule: FedSb,
    settings.FsLoraRule: FsLora,
    settings.FlascRule: Flasc,
    settings.RaFloraRule: RaFlora,
    settings.FloristRule: Florist,
    settings.FloraRule: Flora,
    settings.FedExRule: FedEx,
    settings.LoraFairRule: LoraFair,
    settings.ResidualExactRule: ResidualExact,
}


def first_state(rule: AnyRule, initial: Adapter) -> GlobalState:
    """The state of a run before its first round; the run's rank is that of its initial adapter."""
    return RULES[type(rule)].start(rule, stacked(initial))


def open_rule(rule: AnyRule, state: GlobalState, rank_total: int = 0) -> RoundRule[Any]:
    """One round of a rule on the state before it.

    Args:
        rank_total: the sum of the ranks of the updates to come; what it is too large for decides how sums of
            products are kept (`products.py`).
    """
    return RULES[type(rule)](rule, state, rank_total)
