"""API keys of providers: how they are found, and kept out of everything written or shown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flowrl_core.llm.names import ModelName, Provider

__all__ = ["KEY_VARIABLES", "Keys"]

KEY_VARIABLES: Mapping[Provider, str] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
    "compatible": "FLOWRL_MODEL_KEY",
}

_MASK = "[secret]"
# A shorter value is a placeholder like `none`, which an answer may legitimately contain; real keys are longer.
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class Keys:
    """The keys available to a process; `repr` never shows them."""

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def of(self, model: ModelName) -> str | None:
        """Return the key for the model's provider: from the secrets, else from the environment; None if there is none.

        A key that an HTTP header cannot carry counts as missing: the header's error would show it.
        """
        key = self._given(model)
        return key if key and key.isascii() and key.isprintable() else None

    def problem(self, model: ModelName) -> str | None:
        """Return why the model cannot be asked with the key from `of`; None if it can."""
        variable = KEY_VARIABLES[model.provider]
        if self.of(model) is not None:
            return None
        if self._given(model):
            return f"the value of {variable} is not a key: it has characters that an HTTP header cannot carry"
        return None if model.provider == "compatible" else f"{model} needs a key, and {variable} is not set"

    def masked(self, content: bytes) -> bytes:
        """Return the content with all keys masked."""
        for secret in self._known():
            content = content.replace(secret.encode(), _MASK.encode())
        return content

    def masked_text(self, text: str) -> str:
        """Return the text with all keys masked."""
        for secret in self._known():
            text = text.replace(secret, _MASK)
        return text

    def _given(self, model: ModelName) -> str:
        variable = KEY_VARIABLES[model.provider]
        return (self.secrets.get(variable) or os.environ.get(variable, "")).strip()

    def _known(self) -> Iterable[str]:
        values = [*self.secrets.values(), *(os.environ.get(variable, "") for variable in KEY_VARIABLES.values())]
        known = {value.strip() for value in values}
        # Longest first: one key may be part of another.
        return sorted((value for value in known if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
