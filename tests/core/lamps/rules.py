"""What the lamps' actions do."""

import jax.numpy as jnp


def amounts_after(state, action):
    oil, light = state
    draws, kindles = action == 1, (action == 2) & (oil > 0)
    return jnp.minimum(jnp.stack([oil + draws - kindles, light + kindles]), 9).astype(jnp.int32)
