"""`flowrl env fluents`: the vocabulary of an environment's skills and programs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

__all__ = ["fluents"]

_DERIVED = (
    ("gained.X", "change of inv.X, or of another count or total X (gained.dealt.cow), in this step"),
    ("since.X", "change of inv.X, or of another count or total X, since the plan step began"),
    ("new_ach.X", "ach.X became true in this step (a truth value)"),
    ("d.V", "change of the vital V in this step"),
    ("closer.K", "dist.K before this step minus dist.K now"),
    ("n", "the target count of the plan step, 1..9"),
)


def fluents(
    *, env: str = "craftax-classic", as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """List the fluents, actions and targets of an environment.

    Parameters
    ----------
    env
        The environment.
    as_json
        Print only JSON.
    """
    from flowrl_cli.views.tables import print_json, print_table, say
    from flowrl_core.vocabulary.catalogue import vocabulary

    vocab = vocabulary(env)
    if as_json:
        print_json(
            {
                "env": vocab.env,
                "capacity": vocab.capacity,
                "fluents": [{"name": f.name, "kind": f.kind, "low": f.low, "high": f.high} for f in vocab.fluents],
                "hidden": [f.name for f in vocab.fluents if f.is_hidden],
                "derived": dict(_DERIVED),
                "actions": list(vocab.actions),
                "targets": list(vocab.targets),
            }
        )
        return
    rows = [(f.name, f.kind, f"{f.low}..{f.high}", "rewards only" if f.is_hidden else "") for f in vocab.fluents]
    print_table(("fluent", "kind", "range", "read by"), rows, title=f"Fluents of {vocab.env}")
    print_table(("derived", "meaning"), _DERIVED, title="\nPrograms may also name", prose=["meaning"])
    say("", f"Actions: {', '.join(vocab.actions)}", f"Targets: {', '.join(vocab.targets)}")
