"""The registry: everything decided and learned, with one part per noun.

Every method of a part is one transaction and returns frozen records (`storage.records`). Each raises StorageError, with
nothing changed, if the database cannot be written (full disk, lock held too long), and CorruptError if a row cannot be
read.
"""

from __future__ import annotations

import contextlib
import functools

import sqlalchemy as sa

from flowrl_core.storage import schema
from flowrl_core.storage.database import bring_up_to_date, make_engine, reading, revision
from flowrl_core.storage.layout import Home
from flowrl_core.storage.reader import check_not_lost, open_to_read
from flowrl_core.storage.registry.attempts import Attempts
from flowrl_core.storage.registry.campaigns import Campaigns
from flowrl_core.storage.registry.evaluations import Evaluations
from flowrl_core.storage.registry.library import Library
from flowrl_core.storage.registry.proposals import Proposals
from flowrl_core.storage.registry.requests import Requests
from flowrl_core.storage.registry.runs import Runs
from flowrl_core.storage.registry.skill_runs import SkillRuns
from flowrl_core.storage.registry.skills import Skills

__all__ = ["Registry"]


class Registry:
    """The registry of one home. Open one per process; it may be used from several threads.

    Attributes:
        campaigns: their parameters and starts.
        skills: definitions, and the facts about each skill of a campaign.
        attempts: submissions of runs, and their interruptions.
        runs: runs of all families: opened, claimed, sealed and ended.
        skill_runs: runs of skills, with their looks and ends.
        library: experts, their versions and heads, and bundles.
        evaluations: measurements of learned skills outside any run.
        proposals: the proposals to each campaign.
        requests: the cost book of language models.
    """

    def __init__(self, engine: sa.Engine, closing: contextlib.ExitStack | None = None) -> None:
        self._engine = engine
        self._closing = closing or contextlib.ExitStack()
        self.campaigns = Campaigns(engine)
        self.skills = Skills(engine)
        self.attempts = Attempts(engine)
        self.runs = Runs(engine)
        self.skill_runs = SkillRuns(engine)
        self.library = Library(engine)
        self.evaluations = Evaluations(engine)
        self.proposals = Proposals(engine)
        self.requests = Requests(engine)

    @classmethod
    def open(cls, home: Home) -> Registry:
        """Return the registry of the home, created or migrated if necessary.

        A file of an older schema is first backed up beside itself.

        Raises:
            InputError: the database URL is wrong.
            StorageError: the database has a newer schema than this code, or does not answer.
            CorruptError: the file is not a database, or is empty although the home has contents that belong to it.
        """
        found = cls.existing(home)
        if found is not None:
            return found
        engine = make_engine(home.registry_url)
        home.root.mkdir(parents=True, exist_ok=True)
        bring_up_to_date(home, engine)
        return cls(engine)

    @classmethod
    def existing(cls, home: Home) -> Registry | None:
        """Return the registry of the home as `open` does; None, with nothing written, if there is none yet.

        Raises:
            InputError, StorageError, CorruptError: as `open`.
        """
        engine = make_engine(home.registry_url)
        if revision(engine) is None:
            check_not_lost(home, engine)
            engine.dispose()
            return None
        home.root.mkdir(parents=True, exist_ok=True)
        bring_up_to_date(home, engine)
        return cls(engine)

    @classmethod
    def read(cls, home: Home, *, url: str = "") -> Registry | None:
        """Return the registry of the home, opened read-only; None if no campaign was ever started.

        Args:
            url: a database to read instead of the one that the home is configured for.

        Raises:
            InputError: the database URL is wrong.
            StorageError, CorruptError: as `open`.
        """
        with contextlib.ExitStack() as closing:
            engine = open_to_read(home, closing, url=url)
            return cls(engine, closing.pop_all()) if engine is not None else None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
        self._closing.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @functools.cached_property
    def uuid(self) -> str:
        """The registry's unique name: part of every idempotency key, so that runs of two registries never collide."""
        with reading(self._engine) as tx:
            return str(tx.execute(sa.select(schema.meta.c.uuid)).scalar_one())
