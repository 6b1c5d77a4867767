"""The lamps: an environment as somebody else's package brings it. A test copies this to `__init__.py`."""

from pathlib import Path

from flowrl_core.vocabulary.catalogue import Environment
from flowrl_core.vocabulary.model import Fluent, Vocabulary

ENVIRONMENT = Environment(
    vocabulary=Vocabulary(
        env="lamps",
        fluents=(Fluent("inv.oil", "count", 0, 9), Fluent("inv.light", "count", 0, 9)),
        actions=("rest", "draw", "kindle"),
        targets=("well",),
        observation_size=3,
        rules=("draw gives 1 oil; kindle makes 1 light of 1 oil.",),
    ),
    adapter="lamps.adapter:make",
    packages=("lamps",),
    knowledge=Path(__file__).with_name("knowledge.toml"),
)
