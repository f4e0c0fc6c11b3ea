"""The official side: the training step of google-deepmind/md4 for one device.

compare.py starts it with a Python that has JAX, and with the official checkout in PYTHONPATH. The step is that of the
official train.py without its metrics: one jitted function, with the state donated.
"""

from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import protocol
from md4.models.diffusion.md4 import MD4

Values = dict[str, Any]
"""Values by name: settings, the state of training or what a step reports."""

SETTINGS: dict[str, Values] = {
    "text8-11m": {
        "data_shape": (256,),
        "vocab_size": 27,
        "feature_dim": 64,  # of one head
        "n_layers": 6,
        "num_heads": 6,
        "mlp_type": "glu",
        "depth_scaled_init": True,
        "cond_type": "adaln_zero",
        "outside_embed": False,
    },
    "cifar10-small": {"data_shape": (32, 32, 3), "vocab_size": 256, "feature_dim": 64, "n_layers": 4},
}
"""Arguments of the official MD4 for shapes of `mdpipe bench train`."""


def learning_rate(step: jax.Array) -> jax.Array:
    """Return the learning rate of the cosine schedule."""
    return protocol.LEARNING_RATE * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.maximum(0.0, step / protocol.SCHEDULE_STEPS)))


def build(shape: str, batch: int, **_ours: object) -> protocol.TrainingStep:
    """Compile the step ahead of time on random tokens, and take the first steps; other settings are for our side."""
    settings = SETTINGS[shape]
    model = MD4(
        **settings, cont_time=True, classes=0, time_features="t", noise_schedule_type="linear", dropout_rate=0.0
    )
    optimizer = optax.adamw(learning_rate, b1=0.9, b2=protocol.BETA2, weight_decay=protocol.WEIGHT_DECAY)
    generator = np.random.RandomState(0)
    tokens = generator.randint(0, settings["vocab_size"], (batch, *settings["data_shape"])).astype(np.int32)

    def compute_loss(params: Any, key: jax.Array, x: jax.Array) -> tuple[jax.Array, Values]:
        sample_key, dropout_key = jax.random.split(key)
        stats = model.apply({"params": params}, x, train=True, rngs={"sample": sample_key, "dropout": dropout_key})
        return stats["loss"], stats

    def train_step(state: Values, x: jax.Array) -> tuple[Values, Values]:
        key, next_key = jax.random.split(state["key"])
        (_, stats), gradients = jax.value_and_grad(compute_loss, has_aux=True)(state["params"], key, x)
        updates, moments = optimizer.update(gradients, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        ema = jax.tree.map(lambda old, new: old + (1.0 - protocol.EMA_DECAY) * (new - old), state["ema"], params)
        new_state = {"key": next_key, "step": state["step"] + 1, "params": params, "ema": ema, "moments": moments}
        return new_state, {**stats, "learning_rate": learning_rate(state["step"])}

    key, init_key, sample_key = jax.random.split(jax.random.PRNGKey(0), 3)
    init = jax.jit(lambda rngs: model.init(rngs, jnp.ones_like(tokens), train=False)["params"])
    params = init({"params": init_key, "sample": sample_key})
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    state: Values = {
        "key": key,
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "ema": jax.tree.map(jnp.copy, params),
        "moments": jax.jit(optimizer.init)(params),
    }
    stats: Values = {}
    start = perf_counter()
    compiled_step = jax.jit(train_step, donate_argnums=0).lower(state, tokens).compile()
    compile_seconds = perf_counter() - start

    def run() -> None:
        nonlocal state, stats
        state, stats = compiled_step(state, tokens)
        jax.block_until_ready((state, stats))

    for _ in range(protocol.WARM_UP):
        run()
    return protocol.TrainingStep(run, lambda: float(stats["loss"]), parameters, compile_seconds)


if __name__ == "__main__":
    protocol.serve(build)
