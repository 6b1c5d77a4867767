"""The request that a model would receive, to read it and estimate its cost: built by the real client, not sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from flowrl_core.llm.names import ModelName, parse_model
from flowrl_core.llm.seam import Question
from flowrl_core.specs.campaign import FrontierSpec

if TYPE_CHECKING:
    import httpx2

__all__ = ["Draft", "draft"]

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Draft:
    """A request that is not sent.

    Attributes:
        messages: (role, text) in order.
        schema: the answer's schema, if it is sent separately; empty if it is part of the messages.
        input_tokens: an upper bound on the tokens of the request.
    """

    messages: tuple[tuple[str, str], ...]
    schema: Mapping[str, Any]
    input_tokens: int


def draft(question: Question[A], spec: FrontierSpec) -> Draft:
    """Return the request to the first of the spec's models. Nothing is sent, and no key is needed.

    For models behind other protocols than OpenAI's it gives the same texts, and nearly their size.

    Raises:
        InputError: the model's name cannot be used.
    """
    name = parse_model(spec.model)
    if name.provider in ("anthropic", "google"):
        name = ModelName("openai", name.name)
    # In a thread: the caller may be running an event loop.
    with ThreadPoolExecutor(max_workers=1) as pool:
        sent = pool.submit(lambda: asyncio.run(_body(question, spec, name))).result()
    body = json.loads(sent)
    texts = tuple((message["role"], message["content"]) for message in body["messages"])
    return Draft(texts, _schema(body), len(sent))


async def _body(question: Question[A], spec: FrontierSpec, model: ModelName) -> bytes:
    """Return the body of the first request."""
    import httpx2

    from flowrl_core.llm.connections import agent_for, connected

    def kept(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        raise _Kept

    bodies: list[bytes] = []
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(kept)) as http:
        try:
            await agent_for(connected(model, http, None), question, spec).run(question.text)
        except Exception:
            if not bodies:
                raise
    return bodies[0]


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the answer's schema in a chat completion request."""
    if tools := body.get("tools"):
        return tools[0]["function"]["parameters"]
    return body.get("response_format", {}).get("json_schema", {}).get("schema", {})


class _Kept(Exception):
    """Ends a request before it is sent."""
