"""The network of one expert: an actor and a critic of three tanh layers each, which share only their input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

__all__ = ["ActorCritic"]


class ActorCritic(nn.Module):
    """Action logits and value of observations, from two separate networks of three tanh layers.

    The first layers of actor and critic are one matrix (columns: actor, then critic), since both read the wide
    observation: one pass over it instead of two. Start from `initialisation.initial_params`; the parameters that `init`
    makes have the same structure but a different scale.

    Attributes:
        width: units of each hidden layer, for the actor and for the critic.
        num_actions: number of actions A.
    """

    width: int
    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (logits f32[B, A], value f32[B]) of x f32[B, D]."""
        first = jnp.tanh(nn.Dense(2 * self.width, name="first")(x))
        actor, critic = jnp.split(first, 2, axis=-1)
        for layer in ("second", "third"):
            actor = jnp.tanh(nn.Dense(self.width, name=f"actor_{layer}")(actor))
            critic = jnp.tanh(nn.Dense(self.width, name=f"critic_{layer}")(critic))
        logits = nn.Dense(self.num_actions, name="logits")(actor)
        value = nn.Dense(1, name="value")(critic)
        return logits, value[..., 0]
