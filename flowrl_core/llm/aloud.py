"""Drop what a model that thinks aloud writes around its answer, if the answer can be identified with certainty."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart

__all__ = ["answer_alone", "without_thoughts"]

# Up to the last closing tag of thoughts; the opening tag is not always sent.
_THOUGHTS = re.compile(r".*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_MOST_OPENED = 1_000
_DECODER = json.JSONDecoder()


def without_thoughts(response: ModelResponse, form: type[BaseModel]) -> ModelResponse:
    """Return the response with the answer alone as its text, if it can be identified; otherwise unchanged."""
    texts = [part.content for part in response.parts if isinstance(part, TextPart)]
    answer = answer_alone("".join(texts), form)
    if answer is None:
        return response
    others: Sequence[ModelResponsePart] = [part for part in response.parts if not isinstance(part, TextPart)]
    response.parts = [*others, TextPart(content=answer)]
    return response


def answer_alone(text: str, form: type[BaseModel]) -> str | None:
    """Return the one JSON object of the text if it matches the schema and has text around it; None otherwise.

    With two objects it is unclear which one is meant; a text that is only JSON needs no extraction.
    """
    text = text.strip()
    spoken = _THOUGHTS.sub("", text, count=1)
    found = list(_objects(spoken))
    if len(found) != 1 or found[0] == text:
        return None
    (answer,) = found
    if not all(map(_is_balanced, spoken.split(answer, 1))):
        return None  # part of a truncated text, or of a list
    try:
        form.model_validate_json(answer)
    except ValidationError:
        return None
    return answer


def _is_balanced(text: str) -> bool:
    return text.count("{") == text.count("}") and text.count("[") == text.count("]")


def _objects(text: str) -> Iterator[str]:
    """Yield the outermost JSON objects as written; none if the text has too many braces."""
    if text.count("{") > _MOST_OPENED:
        return
    at = text.find("{")
    while at >= 0:
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield text[at:end]
        at = text.find("{", end)
