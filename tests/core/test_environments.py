"""The environments that come with FlowRL: each does what every environment must do, and its skills keep their names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowrl_core.compiled.fingerprint import import_closure
from flowrl_core.errors import InputError
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.testing.environments import check_environment
from flowrl_core.vocabulary.catalogue import ENVIRONMENTS, environment

IDENTITIES = Path(__file__).parents[1] / "golden" / "identities.json"


@pytest.mark.parametrize("env", ["corridor", pytest.param("craftax-classic", marks=pytest.mark.long)])
def test_an_environment_does_what_flowrl_relies_on(env: str) -> None:
    check_environment(env)


def test_the_shipped_skills_keep_their_identities() -> None:
    """Experts, bundles and heads of earlier homes are found by these: whoever changes one leaves them behind."""
    found = {env: {s.name: s.identity(env) for s in load_knowledge(env).skills.values()} for env in ENVIRONMENTS}
    assert found == json.loads(IDENTITIES.read_text())


def test_what_one_game_is_compiled_from_holds_nothing_of_another() -> None:
    for env in ENVIRONMENTS:
        closure = import_closure(["flowrl_core.compiled.functions", environment(env).traced])
        games = {name.split(".")[2] for name in closure if name.startswith("flowrl_core.envs.") and name.count(".") > 2}
        assert games == {env.replace("-", "_")}


def test_an_entry_is_read_without_jax_and_without_the_other_entries() -> None:
    code = "import sys; from flowrl_core.vocabulary.catalogue import environment; environment('corridor');"
    code += "print(sorted(one for one in sys.modules if one.startswith(('jax', 'numpy', 'flowrl_core.envs.'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['flowrl_core.envs.corridor', 'flowrl_core.envs.corridor.vocabulary']"


def test_an_unknown_environment_is_refused_with_the_names_that_were_meant() -> None:
    with pytest.raises(InputError, match=r"no environment 'coridor'. Did you mean corridor\?"):
        environment("coridor")
    with pytest.raises(InputError, match=r"Known: corridor, craftax-classic"):
        environment("xyz")
