"""`flowrl knowledge check`: check a knowledge base before anything is trained."""

from __future__ import annotations

__all__ = ["check"]


def check(file: str, /) -> None:
    """Check a knowledge base: its fields, programs and graph, and a plan for each of its skills.

    Parameters
    ----------
    file
        A TOML file, or the name of a shipped knowledge base.
    """
    from flowrl_cli.request.inputs import open_knowledge
    from flowrl_cli.views.tables import print_table
    from flowrl_core.skills.planner import make_plan

    base = open_knowledge(None, file)
    plans = [make_plan(base, name) for name in base.skills]
    rows = [(made.target, len(made.steps), ", ".join(s for s in made.skills if s != made.target)) for made in plans]
    print_table(("skill", "steps", "needs"), rows, title=f"{file}: {base.env}", prose=["needs"])
    print(f"{len(plans)} skills, all with a plan: no errors found")
