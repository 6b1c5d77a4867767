"""Parameters of flow runs, checked in the run by the rules for options and files, with the same messages.

Prefect's server would check them against the form's schema, which accepts neither `min-frames` nor 2e5; and Prefect's
engine crashes on an unknown parameter.
"""

from __future__ import annotations

import inspect
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.states import Failed
from pydantic import ValidationError, create_model

from flowrl_core.refusals import refusal
from flowrl_core.specs.base import Spec
from tasks.options import FLOW

__all__ = ["checked", "refused"]


def checked(flow: Flow[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the flow's parameters: those given, and the defaults of the rest.

    Raises:
        InputError: the first parameter that is wrong, missing or unknown.
    """
    signature = inspect.signature(flow.fn, eval_str=True)
    fields: dict[str, Any] = {
        one.name: (one.annotation, ... if one.default is one.empty else one.default)
        for one in signature.parameters.values()
    }
    model = create_model("Parameters", __base__=Spec, **fields)
    try:
        valid = model.model_validate(given)
    except ValidationError as exc:
        raise refusal(exc, model=model) from exc
    return {name: getattr(valid, name) for name in fields}


@flow(name="refused", **FLOW)
def refused(reason: str) -> State:
    """End a run whose parameters cannot be used."""
    return Failed(name="Refused", message=reason)
