"""Names of models: `PROVIDER:NAME`, or `NAME@URL` for a server that speaks OpenAI's protocol."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from flowrl_core.errors import InputError
from flowrl_core.nearest import nearest
from flowrl_core.web_addresses import web_address

__all__ = ["ModelName", "Provider", "check_installed", "check_takes", "parse_model"]

Provider = Literal["openai", "anthropic", "google", "compatible"]

_FIELD = "frontier.model"
_HOSTED = tuple(provider for provider in get_args(Provider) if provider != "compatible")
# A model's own name may hold both `:` and `@` (llama3.2:1b), so look for a URL first, at the start of a scheme.
_AT_URL = re.compile(r"(?P<name>.*?)@(?P<url>[A-Za-z][A-Za-z0-9+.-]*://.*)")
_PACKAGES = {"anthropic": "anthropic", "google": "google.genai"}


@dataclass(frozen=True)
class ModelName:
    """A model that can be asked. Its name is recorded and shown: nothing in it is secret.

    Attributes:
        name: the name at its provider or server.
        url: the server's URL, if the provider is `compatible`.
    """

    provider: Provider
    name: str
    url: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.url}" if self.provider == "compatible" else f"{self.provider}:{self.name}"


def parse_model(text: str) -> ModelName:
    """Return the model that the text names. A URL without a path gets `/v1`, the usual path of such servers.

    Raises:
        InputError: the text names no model, or holds secrets that must not be recorded.
    """
    text = text.strip()
    if not text:
        remedy = "Name one: openai:NAME, or NAME@http://localhost:8000/v1 of your own server"
        raise InputError(_FIELD, "no model is named", remedy)
    if at := _AT_URL.fullmatch(text):
        # Do not repeat any of the text before this check: it may hold a password.
        url = _checked_url(at["url"])
        return ModelName("compatible", _checked_name(at["name"], text), url)
    provider, colon, name = text.partition(":")
    if "@" in text and provider not in _HOSTED:
        problem = f"what follows the @ of {text!r} is not a URL"
        raise InputError(_FIELD, problem, "Write NAME@http://HOST:PORT/v1 or NAME@https://HOST/v1")
    if not colon:
        raise InputError(
            _FIELD, f"{text!r} does not name a provider", f"Write openai:{text}, or {text}@URL of its server"
        )
    for known in _HOSTED:
        if provider == known:
            return ModelName(known, _checked_name(name, text))
    near = nearest(provider, _HOSTED, most=2) or _HOSTED
    remedy = f"Known providers: {', '.join(near)}; name any other server as NAME@URL"
    raise InputError(_FIELD, f"{provider!r} is not a known provider", remedy)


def check_installed(model: ModelName) -> None:
    """Check that the client package of the model's provider is installed.

    Raises:
        InputError: it belongs to an extra that is not installed.
    """
    package = _PACKAGES.get(model.provider)
    if package and not _is_installed(package):
        problem = f"{model} needs the package {package}, which is not installed"
        raise InputError(_FIELD, problem, f"Install it: pip install 'pydantic-ai-slim[{model.provider}]'")


def check_takes(model: ModelName, extra: Sequence[str]) -> None:
    """Check that requests to the model can carry these extra fields.

    Raises:
        InputError: the provider's package does not pass any on.
    """
    if extra and model.provider == "google":
        problem = f"{model} accepts no fields besides those with their own setting"
        raise InputError(
            "frontier.extra", problem, "Omit it, or use the model through a server that speaks OpenAI's protocol"
        )


def _checked_name(name: str, text: str) -> str:
    if not name or not name.isprintable() or any(character.isspace() for character in name):
        raise InputError(_FIELD, f"{text!r} contains no model name", "Write PROVIDER:NAME or NAME@URL, without spaces")
    return name


def _checked_url(url: str) -> str:
    remedy = "Write http://HOST:PORT/v1 or https://HOST/v1"
    holds_more = "the model's URL contains a user, a password, a query or a fragment, but model names are recorded"
    if "?" in url or "#" in url or "@" in url.partition("://")[2].partition("/")[0]:
        # Model strings are recorded in the registry, in the journal and in logs.
        raise InputError(_FIELD, holds_more, "Remove it and put the key into FLOWRL_MODEL_KEY")
    try:
        parts = web_address(url)
    except ValueError as exc:
        raise InputError(_FIELD, f"the model's URL {url!r} cannot be used: {exc}", remedy) from None
    # The documentation often gives the full address of the endpoint, which the clients build themselves.
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme.lower()}://{parts.netloc}{path or '/v1'}"


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
