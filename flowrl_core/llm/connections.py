"""Connect a model's name to its server, and build the agent that asks it for an answer of a given schema."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.settings import ModelSettings

from flowrl_core.llm.names import ModelName
from flowrl_core.llm.seam import Question
from flowrl_core.specs.campaign import FrontierSpec

__all__ = ["agent_for", "connected", "settings_of"]

A = TypeVar("A", bound=BaseModel)

_OUTPUTS = {"native": NativeOutput, "tool": ToolOutput, "prompted": PromptedOutput}
_NO_KEY = "none"  # the packages require one; if a key is needed, the wire refuses to send without it


def connected(model: ModelName, http: httpx2.AsyncClient, key: str | None) -> Model:
    """Return the model, accessed through the HTTP client. Nothing is sent yet."""
    key = key or _NO_KEY
    if model.provider == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client = AsyncAnthropic(base_url="https://api.anthropic.com", api_key=key, http_client=http, max_retries=0)
        return AnthropicModel(model.name, provider=AnthropicProvider(anthropic_client=client))
    if model.provider == "google":
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        return GoogleModel(model.name, provider=GoogleProvider(api_key=key, http_client=http))
    return _chat_model(model, http, key)


def agent_for(model: Model, question: Question[A], spec: FrontierSpec) -> Agent[object, A]:
    """Return the agent that asks the model, checks the answer, and sends back its errors."""
    output: Any = _OUTPUTS[spec.output](question.answer)
    return Agent(
        model,
        name="flowrl",
        output_type=output,
        instructions=question.instructions,
        retries=spec.answer_retries,
        model_settings=settings_of(spec),
    )


def settings_of(spec: FrontierSpec) -> ModelSettings:
    """Return the settings sent with each request.

    They have no `max_retries`: with it, each request would use a copy of the client built anew from the environment.
    """
    settings = ModelSettings(
        max_tokens=spec.max_output_tokens,
        # Without it, a malformed answer is sent back with 120 words about tags.
        framing_announcement="never",
    )
    if spec.sampling_temperature is not None:
        settings["temperature"] = spec.sampling_temperature
    if spec.thinking != "default":
        settings["thinking"] = False if spec.thinking == "off" else spec.thinking
    if spec.extra:
        settings["extra_body"] = spec.extra_fields
    return settings


def _chat_model(model: ModelName, http: httpx2.AsyncClient, key: str) -> Model:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    if model.provider == "openai":
        # The address is explicit: OPENAI_BASE_URL could send the key elsewhere without a trace in the journal.
        client = AsyncOpenAI(base_url="https://api.openai.com/v1", api_key=key, http_client=http, max_retries=0)
        return OpenAIChatModel(model.name, provider=OpenAIProvider(openai_client=client))
    client = AsyncOpenAI(base_url=model.url, api_key=key, http_client=http, max_retries=0)
    # Do not send OPENAI_ORG_ID and OPENAI_PROJECT_ID, which are private.
    client.organization = client.project = None
    profile = OpenAIModelProfile(
        supports_json_schema_output=True,
        # Nothing is sent about thinking unless frontier.thinking is set.
        supports_thinking=True,
        # Some servers refuse a message that holds their own thoughts, and none needs them.
        openai_chat_send_back_thinking_parts=False,
        # Ollama and older servers ignore `max_completion_tokens`, so the answer would have no limit.
        openai_chat_supports_max_completion_tokens=False,
        # The chat templates of many open models refuse any system message except one at the beginning.
        openai_chat_supports_multiple_system_messages=False,
        supports_inline_system_prompts=False,
    )
    provider = OpenAICompatibleProvider("compatible", openai_client=client)
    return OpenAIChatModel(model.name, provider=provider, profile=profile)
