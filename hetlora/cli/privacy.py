"""`hetlora privacy`: a population's budget of differential privacy, and what its rounds spent of it."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.name_options import PopulationArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption
from hetlora.messages.privacy import (
    LEAST_DELTA,
    LEAST_EPSILON,
    LEAST_NOISE,
    MOST_DELTA,
    MOST_EPSILON,
    MOST_NOISE,
    PrivacyBudget,
    PrivacyStatus,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Differential privacy: a population's budget, and what its rounds spent of it. "
    "docs/privacy.md says what is promised to whom.",
)


@app.command()
def set_budget(
    population: PopulationArgument,
    epsilon: Annotated[
        float,
        typer.Option(min=LEAST_EPSILON, max=MOST_EPSILON, help="What all rounds together may spend."),
    ],
    delta: Annotated[
        float,
        typer.Option(
            min=LEAST_DELTA, max=MOST_DELTA, help="At this delta: well below one over the number of devices."
        ),
    ] = 1e-6,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a population a budget, or another: from then on its runs all add noise.

    Example: `hetlora privacy set-budget keyboards --epsilon 8 --delta 1e-7`
    """
    with connect(url, token, ca_file) as operator:
        status = operator.set_privacy_budget(population, PrivacyBudget(epsilon=epsilon, delta=delta))
    _tell(status, as_json)


@app.command()
def show(
    population: PopulationArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a population's budget, and what is spent of it.

    Example: `hetlora privacy show keyboard`
    """
    with connect(url, token, ca_file) as operator:
        status = operator.privacy(population)
    _tell(status, as_json)


def _tell(status: PrivacyStatus, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    spent, budget = status.spent, status.budget
    say(
        f"population {status.population}: epsilon {spent.epsilon:.4g} of {budget.epsilon:g} "
        f"is spent at delta {budget.delta:g}, by {status.rounds} round{'' if status.rounds == 1 else 's'}",
    )


@app.command()
def plan(
    rounds: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rounds that are to commit.")],
    noise_multiplier: Annotated[
        float, typer.Option(min=LEAST_NOISE, max=MOST_NOISE, help="sigma of each of them.")
    ],
    delta: Annotated[float, typer.Option(min=LEAST_DELTA, max=MOST_DELTA)] = 1e-6,
    as_json: JsonFlag = False,
) -> None:
    """Tell what so many rounds of so much noise would spend, without a service.

    Example: `hetlora privacy plan --rounds 100 --noise-multiplier 8 --delta 1e-7`
    """
    with part("service"):
        from aggregator_service.privacy.accounting import precision_of, spent_at

        spent = spent_at(precision_of([noise_multiplier] * rounds), delta)
    if as_json:
        print_json(spent)
    else:
        say(f"epsilon {spent.epsilon:.4g} at delta {delta:g}")
