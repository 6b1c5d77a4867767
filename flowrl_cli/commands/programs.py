"""`flowrl programs check`: the static proof of a done or reward expression."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["check"]


def check(
    expr: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    kind: Literal["done", "reward"],
    env: str = "craftax-classic",
) -> None:
    """Prove that an expression is finite, bounded, not trivial and not impossible; nothing is executed.

    Parameters
    ----------
    expr
        The expression, quoted; it may begin with `-`.
    kind
        done: a truth value that ends the plan step. reward: a number for each step.
    env
        The environment whose fluents the expression uses.
    """
    from flowrl_core.programs.language import check_done, check_reward
    from flowrl_core.vocabulary.catalogue import vocabulary

    vocab = vocabulary(env)
    checked = check_done(expr, vocab) if kind == "done" else check_reward(expr, vocab)
    low, high = checked.interval
    print(f"accepted: {kind} in [{low:g}, {high:g}]")
    print(f"reads: {', '.join(checked.fluents) or 'nothing'}")
