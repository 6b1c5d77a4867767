"""Records of arrays that cross `jit` and can be serialised with an exported function."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
from jax import export

__all__ = ["exportable", "tree_class"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def tree_class(cls: type[T]) -> type[T]:
    """Return the class as a frozen dataclass that JAX can flatten, trace and export; every field is a subtree."""
    record: Any = dataclasses.dataclass(frozen=True)(cls)
    names = [field.name for field in dataclasses.fields(record)]
    jax.tree_util.register_dataclass(record, data_fields=names, meta_fields=[])
    export.register_pytree_node_serialization(
        record,
        serialized_name=f"{cls.__module__}.{cls.__qualname__}",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: (),
        from_children=lambda _, children: record(*children),
    )
    return cls if record is cls else record


def exportable(cls: type[Any]) -> None:
    """Register a NamedTuple class for serialisation by `jax.export`. Call it once per class."""
    export.register_namedtuple_serialization(cls, serialized_name=f"{cls.__module__}.{cls.__qualname__}")
