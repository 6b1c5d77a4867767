"""What a model that thinks aloud writes around its answer: dropped where it is certain which part the answer is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart

__all__ = ["answer_alone", "without_thoughts"]

# Up to the last end of thoughts, whose beginning is not always sent.
_THOUGHTS = re.compile(r".*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_MOST_OPENED = 1_000
_DECODER = json.JSONDecoder()


def without_thoughts(response: ModelResponse, form: type[BaseModel]) -> ModelResponse:
    """The response with the answer alone for its text, where that is certain; else as it is."""
    texts = [part.content for part in response.parts if isinstance(part, TextPart)]
    answer = answer_alone("".join(texts), form)
    if answer is None:
        return response
    others: Sequence[ModelResponsePart] = [part for part in response.parts if not isinstance(part, TextPart)]
    response.parts = [*others, TextPart(content=answer)]
    return response


def answer_alone(text: str, form: type[BaseModel]) -> str | None:
    """The one JSON object of the text, if it has the form and something else stands around it; None otherwise.

    Of two objects nobody knows which is meant; a text that is JSON as it is needs no help.
    """
    text = text.strip()
    spoken = _THOUGHTS.sub("", text, count=1)
    found = list(_objects(spoken))
    if len(found) != 1 or found[0] == text:
        return None
    (answer,) = found
    if not all(map(_is_balanced, spoken.split(answer, 1))):
        return None  # part of something that was broken off, or of a list
    try:
        form.model_validate_json(answer)
    except ValidationError:
        return None
    return answer


def _is_balanced(text: str) -> bool:
    return text.count("{") == text.count("}") and text.count("[") == text.count("]")


def _objects(text: str) -> Iterator[str]:
    """The outermost JSON objects, as they are written; of very many braces none is looked for."""
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
