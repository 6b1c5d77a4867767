"""A question to a language model through the client, and all that came of it: shared by tests of the client."""

import asyncio
import time

from model_server import ModelServer, say
from pydantic import BaseModel, ConfigDict, Field

from flowrl_core.errors import ModelError
from flowrl_core.llm.client import connect
from flowrl_core.llm.seam import Question
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.testing import EphemeralJournal, ListBook

SECRET = "sk-marked-0123456789abcdef"


class Idea(BaseModel):
    """An idea."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=40)
    steps: list[str] = Field(default=[], max_length=3)


QUESTION = Question("You propose skills.", "Propose one für mich.", Idea)
GOOD = say({"title": "dig"})


class Asked:
    """A question to a server with a script, and all that came of it."""

    def __init__(self, script, *, model=None, question=QUESTION, book=None, secrets=None, fallbacks=(), **options):
        self.book = book or ListBook()
        self.journal = EphemeralJournal()
        self.waits = []
        self.reply = self.error = None
        with ModelServer(script) as server:
            fallbacks = [server.model if name == "server" else name for name in fallbacks]
            spec = FrontierSpec(model=model or server.model, fallbacks=fallbacks, **{"timeout_s": 5, **options})
            began = time.monotonic()
            try:
                languages = connect(spec, book=self.book, journal=self.journal, secrets=secrets, sleep=self._sleep)
                self.reply = asyncio.run(languages.ask(question))
            except Exception as exc:
                self.error = exc
            self.seconds = time.monotonic() - began
        self.requests = server.requests
        self.settled = [(b.outcome, b.input_tokens, b.output_tokens) for b in self.book.bookings]

    async def _sleep(self, seconds):
        self.waits.append(seconds)

    @property
    def code(self):
        assert isinstance(self.error, ModelError), (self.error, self.reply)
        return self.error.code
