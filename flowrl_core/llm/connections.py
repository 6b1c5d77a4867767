"""From a model's name to what speaks with its server, and to an agent that asks it for one form of answer."""

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
_NO_KEY = "none"  # the packages want one; where a key is needed, the wire refuses to send without


def connected(model: ModelName, http: httpx2.AsyncClient, key: str | None) -> Model:
    """The model, asked through the HTTP client. Nothing is sent yet."""
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
    """What asks the model, checks the answer, and sends back what is wrong with it."""
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
    """The settings that are sent with each request.

    No `max_retries` is among them: each request would go through a copy of the client, made from the environment anew.
    """
    settings = ModelSettings(
        max_tokens=spec.max_output_tokens,
        # Without it, a malformed answer is sent back with 120 words on what tags mean.
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
        # The address is written out, for OPENAI_BASE_URL could send the key elsewhere, and the journal not know it.
        client = AsyncOpenAI(base_url="https://api.openai.com/v1", api_key=key, http_client=http, max_retries=0)
        return OpenAIChatModel(model.name, provider=OpenAIProvider(openai_client=client))
    client = AsyncOpenAI(base_url=model.url, api_key=key, http_client=http, max_retries=0)
    # Of OPENAI_ORG_ID and OPENAI_PROJECT_ID, which are nobody else's business.
    client.organization = client.project = None
    profile = OpenAIModelProfile(
        supports_json_schema_output=True,
        # Nothing is said of it unless frontier.thinking does.
        supports_thinking=True,
        # Some servers refuse a message with their own thoughts in it, and none needs them.
        openai_chat_send_back_thinking_parts=False,
        # Ollama and older servers know no `max_completion_tokens`, and would answer without end.
        openai_chat_supports_max_completion_tokens=False,
        # The templates of many open models refuse any system message but one at the beginning.
        openai_chat_supports_multiple_system_messages=False,
        supports_inline_system_prompts=False,
    )
    provider = OpenAICompatibleProvider("compatible", openai_client=client)
    return OpenAIChatModel(model.name, provider=provider, profile=profile)
