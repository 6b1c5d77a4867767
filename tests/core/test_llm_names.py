"""Names of models, as a campaign's parameters and the command line write them."""

import pytest

from flowrl_core.errors import InputError
from flowrl_core.llm.client import connect
from flowrl_core.llm.names import ModelName, parse_model
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.testing import EphemeralJournal, ListBook

SECRET = "sk-marked-0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("openai:gpt-5.4", ModelName("openai", "gpt-5.4")),
        (" anthropic:claude-opus-5 ", ModelName("anthropic", "claude-opus-5")),
        ("google:gemini-2.5-pro", ModelName("google", "gemini-2.5-pro")),
        ("llama3.2:1b@http://localhost:11434/v1", ModelName("compatible", "llama3.2:1b", "http://localhost:11434/v1")),
        ("a@q4@https://h/api/", ModelName("compatible", "a@q4", "https://h/api")),
        ("m@https://h/v1/chat/completions/", ModelName("compatible", "m", "https://h/v1")),
        ("openai:x@HTTP://[::1]:80", ModelName("compatible", "openai:x", "http://[::1]:80/v1")),
    ],
)
def test_a_models_name_is_read_and_written(text, name):
    assert parse_model(text) == name
    assert parse_model(str(name)) == name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Name one: openai:NAME"),
        ("gpt-5", "openai:gpt-5"),
        ("opnai:gpt-5", "openai"),
        ("mistral:large", "NAME@URL"),
        ("openai:", "PROVIDER:NAME"),
        ("openai:two words", "without spaces"),
        ("@http://localhost/v1", "NAME@URL"),
        ("m@localhost:8000", "http://HOST:PORT/v1"),
        ("m@ftp://localhost/v1", "http://HOST:PORT/v1"),
        ("m@file:///etc/passwd", "http://HOST:PORT/v1"),
        ("m@http://localhost:port/v1", "http://HOST:PORT/v1"),
        ("m@http:///v1", "http://HOST:PORT/v1"),
        ("m@http://local host/v1", "spaces"),
        ("m@http://999.1.1.1/v1", "not permitted"),
        ("m@http://0177.0.0.1/v1", "permitted"),
        ("m@http://１２７.0.0.1/v1", "digits"),
        ("m@http://a..b/v1", "empty part"),
    ],
)
def test_what_names_no_model_is_refused_with_a_remedy(text, told):
    with pytest.raises(InputError) as caught:
        parse_model(text)
    assert caught.value.field == "frontier.model" and told in str(caught.value)


@pytest.mark.parametrize("where", ["user:{}@host", "{}@host", "host/v1?key={}", "host/v1#{}"])
def test_a_name_with_a_secret_in_it_is_refused_and_not_repeated(where):
    with pytest.raises(InputError) as caught:
        parse_model(f"m@https://{where.format(SECRET)}")
    assert SECRET not in str(caught.value) and "FLOWRL_MODEL_KEY" in caught.value.remedy


@pytest.mark.parametrize("provider", ["anthropic", "google"])
def test_what_is_not_installed_is_said_with_the_extra_to_install(provider, monkeypatch):
    monkeypatch.setattr("flowrl_core.llm.names._PACKAGES", {provider: "no_such_package.within"})
    spec = FrontierSpec(model="openai:x", fallbacks=[f"{provider}:x"])
    with pytest.raises(InputError, match=rf"pydantic-ai-slim\[{provider}\]"):
        connect(spec, book=ListBook(), journal=EphemeralJournal())
