"""Convert weights of the official implementation to the names and layouts of our networks.

Official names are Flax paths, kernels are (in, out) and of convolutions (H, W, in, out).
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "fixtures/md4"
INT8_SCALES = {"CondEmbedding_0": 64, "embedding": 16}
"""What stored weights are divided by; all others by 32."""

Weights = dict[str, Tensor]


def tensors(name: str) -> Weights:
    """Return the arrays of a fixture."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays.files}


def transformer_weights() -> Weights:
    """Return the weights in transformer.npz by their Flax paths."""
    stored = {name.removeprefix("w/"): value for name, value in tensors("transformer").items() if name[:2] == "w/"}
    divisors = {name: next((s for part, s in INT8_SCALES.items() if part in name), 32) for name in stored}
    return {name: value.float() / divisors[name] for name, value in stored.items()}


def map_transformer(official: Weights, heads: int) -> Weights:
    """Map what belongs to the official transformer, weights or gradients, to the names of ours."""
    is_conditioned = "Transformer_0/Dense_1/kernel" in official
    head = "Dense_1" if is_conditioned else "Dense_0"
    mapped = {
        "embedding.weight": official["Transformer_0/Embed_0/embedding"],
        "head.weight": official[f"Transformer_0/{head}/kernel"].T,
        **_rms_norm(official, "Transformer_0/RMSNorm_0", "norm.norm"),
        **map_conditioning(official),
    }
    if is_conditioned:
        mapped |= _linear(official, "Transformer_0/Dense_0", "norm.modulation")
    blocks = {name.split("/")[1] for name in official if "TransformerBlock" in name}
    for index in range(len(blocks)):
        prefix = f"Transformer_0/TransformerBlock_{index}"
        wq, wk, wv, wo = (official[f"{prefix}/attention/{name}/kernel"] for name in ("wq", "wk", "wv", "wo"))
        mapped[f"attention.{index}.inner.qkv_proj.weight"] = torch.cat(
            [neighbors_to_halves(wq, heads), neighbors_to_halves(wk, heads), wv], dim=1
        ).T
        mapped[f"attention.{index}.inner.out_proj.weight"] = wo.T
        w1, w2, w3 = (official[f"{prefix}/feed_forward/{name}/kernel"] for name in ("w1", "w2", "w3"))
        mapped[f"mlp.{index}.inner.up_proj.weight"] = torch.cat([w3, w1], dim=1).T
        mapped[f"mlp.{index}.inner.down_proj.weight"] = w2.T
        mapped |= _rms_norm(official, f"{prefix}/RMSNorm_0", f"attention.{index}.norm")
        mapped |= _rms_norm(official, f"{prefix}/RMSNorm_1", f"mlp.{index}.norm")
        for part in ("kernel", "bias") if is_conditioned else ():
            halves = official[f"{prefix}/Dense_0/{part}"].chunk(2, dim=-1)
            for branch, half in zip(("attention", "mlp"), halves, strict=True):
                name = "weight" if part == "kernel" else "bias"
                mapped[f"{branch}.{index}.modulation.{name}"] = half.T if part == "kernel" else half
    return mapped


def neighbors_to_halves(kernel: Tensor, heads: int) -> Tensor:
    """Reorder each head's columns: official rotary embeddings rotate adjacent channels, ours i and i + d / 2."""
    return kernel.unflatten(1, (heads, -1, 2)).transpose(2, 3).flatten(1)


def map_conditioning(official: Weights) -> Weights:
    """Map the class embedding and CondEmbedding, as far as there are any."""
    mapped = {}
    if "cond_embeddings/embedding" in official:
        mapped["conditioning.classes.weight"] = official["cond_embeddings/embedding"]
    if "CondEmbedding_0/dense0/kernel" in official:
        mapped |= _linear(official, "CondEmbedding_0/dense0", "conditioning.time.up_proj")
        mapped |= _linear(official, "CondEmbedding_0/Dense_0", "conditioning.time.down_proj")
    return mapped


def describe_weights(name: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the description of a network with generated weights, and the shapes of its weights by their Flax paths."""
    descriptions: dict[str, Any] = {}
    for file in ("images_weights.json", "networks_weights.json"):
        descriptions |= json.loads((FOLDER / file).read_text())
    description = descriptions[name]
    base = descriptions[description["like"]]["parameters"] if "like" in description else {}
    return description, base | description["parameters"]


def generated_weights(name: str) -> Weights:
    """Generate the weights of the official network `name` by their Flax paths, and check their digest."""
    description, shapes = describe_weights(name)
    random = np.random.RandomState(description["seed"])
    digest, weights = hashlib.sha256(), {}
    for path, shape in sorted(shapes.items()):
        values = random.standard_normal(shape)
        if path.endswith("kernel"):
            first_only = len(shape) == 3 and "/out/" not in path
            values = values / np.sqrt(shape[0] if first_only else np.prod(shape[:-1]))
        elif path.endswith("scale"):
            values = 1 + 0.3 * values
        elif not path.endswith("embedding"):
            values = 0.3 * values
        values = values.astype(np.float32)
        digest.update(values.tobytes())
        weights[path] = torch.from_numpy(values)
    assert digest.hexdigest() == description["sha256_of_weights"]
    return weights


def without_time(official: Weights) -> Weights:
    """Return the weights without what time conditioning adds to a network; to a U-Net without classes, more."""
    has_classes = "cond_embeddings/embedding" in official
    added = re.compile("CondEmbedding" if has_classes else r"CondEmbedding|ResBlock_\d+/Dense_0")
    return {path: value for path, value in official.items() if not added.search(path)}


def map_unet(official: Weights, blocks: int) -> Weights:
    """Map the official U-Net's weights to the names of ours."""
    inner = {path.removeprefix("UNet5DWrapper_0/UNet_0/"): value for path, value in official.items()}
    mapped = {"embedding.weight": official["Embed_0/embedding"], **_ends(inner)}
    mapped |= _affine(inner, "GroupNorm_0", "norm")
    for index, ours in enumerate(_block_names(blocks, with_middle=True)):
        theirs = f"ResBlock_{index}"
        mapped |= _convolutions(inner, theirs, ours)
        mapped |= _affine(inner, f"{theirs}/GroupNorm_0", f"{ours}.norm1")
        mapped |= _affine(inner, f"{theirs}/GroupNorm_1", f"{ours}.norm2")
        mapped |= _shortcut(inner, f"{theirs}/Dense_1", ours)
        if f"{theirs}/Dense_0/kernel" in inner:
            mapped[f"{ours}.modulation.weight"] = inner[f"{theirs}/Dense_0/kernel"].T
    mapped |= _affine(inner, "SelfAttention_0/GroupNorm_0", "attention.norm")
    attention = "SelfAttention_0/MultiHeadDotProductAttention_0"
    qkv = ("query", "key", "value")
    mapped["attention.qkv_proj.weight"] = torch.cat([inner[f"{attention}/{x}/kernel"][:, 0] for x in qkv], dim=1).T
    mapped["attention.qkv_proj.bias"] = torch.cat([inner[f"{attention}/{x}/bias"][0] for x in qkv])
    mapped["attention.out_proj.weight"] = inner[f"{attention}/out/kernel"][0].T
    mapped["attention.out_proj.bias"] = inner[f"{attention}/out/bias"]
    return mapped | map_conditioning(official)


def map_uvit(official: Weights, blocks: int, layers: int) -> Weights:
    """Map the official U-ViT's weights to the names of ours."""
    inner = {path.removeprefix("UNet5DWrapper_0/UNet_0/"): value for path, value in official.items()}
    mapped = {"embedding.weight": official["Embed_0/embedding"], **_ends(inner), **map_conditioning(official)}
    mapped |= _adaptive_group_norm(inner, "CondGroupNorm_0", "norm")
    for index, ours in enumerate(_block_names(blocks, with_middle=False)):
        theirs = f"ResBlock_{index}"
        mapped |= _convolutions(inner, theirs, ours)
        mapped |= _adaptive_group_norm(inner, f"{theirs}/CondGroupNorm_0", f"{ours}.norm1")
        mapped |= _adaptive_group_norm(inner, f"{theirs}/CondGroupNorm_1", f"{ours}.norm2")
        mapped |= _shortcut(inner, f"{theirs}/Dense_0", ours)
    # The official patches are (row, column, channel), ours (channel, row, column).
    mapped["patches.weight"] = inner["DiT_0/x_embedder/proj/kernel"].permute(3, 2, 0, 1).flatten(1)
    mapped["patches.bias"] = inner["DiT_0/x_embedder/proj/bias"]
    mapped["positions"] = inner["DiT_0/pos_embed"]
    is_conditioned = "DiT_0/final_layer/Dense_0/kernel" in inner
    mapped |= _rms_norm(inner, "DiT_0/final_layer/RMSNorm_0", "middle_norm.norm")
    if is_conditioned:
        mapped |= _linear(inner, "DiT_0/final_layer/Dense_0", "middle_norm.modulation")
    width = inner["Conv_0/bias"].numel()
    pixels = inner["DiT_0/final_layer/linear/kernel"].T.unflatten(0, (4, width))
    mapped["pixels.weight"] = pixels.transpose(0, 1).flatten(0, 1)
    mapped["pixels.bias"] = inner["DiT_0/final_layer/linear/bias"].view(4, width).T.flatten()
    for index in range(layers):
        theirs, ours = f"DiT_0/blocks_{index}", f"middle.{index}"
        for part, name in (("kernel", "weight"), ("bias", "bias")):
            stacked = torch.cat([inner[f"{theirs}/attn/{x}/{part}"] for x in ("wq", "wk", "wv")], dim=-1)
            mapped[f"{ours}.qkv_proj.{name}"] = stacked.T if part == "kernel" else stacked
        mapped[f"{ours}.out_proj.weight"] = inner[f"{theirs}/attn/wo/kernel"].T
        mapped |= _linear(inner, f"{theirs}/mlp/fc1", f"{ours}.up_proj")
        mapped |= _linear(inner, f"{theirs}/mlp/fc2", f"{ours}.down_proj")
        mapped |= _rms_norm(inner, f"{theirs}/RMSNorm_0", f"{ours}.norm1")
        mapped |= _rms_norm(inner, f"{theirs}/RMSNorm_1", f"{ours}.norm2")
        if is_conditioned:
            mapped |= _linear(inner, f"{theirs}/Dense_0", f"{ours}.modulation")
    return mapped


def _block_names(blocks: int, *, with_middle: bool) -> list[str]:
    middle = [f"middle.{i}" for i in range(2)] if with_middle else []
    return [f"down.{i}" for i in range(blocks)] + middle + [f"up.{i}" for i in range(blocks + 1)]


def _linear(inner: Weights, theirs: str, ours: str) -> Weights:
    return {f"{ours}.weight": inner[f"{theirs}/kernel"].T, f"{ours}.bias": inner[f"{theirs}/bias"]}


def _affine(inner: Weights, theirs: str, ours: str) -> Weights:
    return {f"{ours}.weight": inner[f"{theirs}/scale"], f"{ours}.bias": inner[f"{theirs}/bias"]}


def _rms_norm(inner: Weights, theirs: str, ours: str) -> Weights:
    return {f"{ours}.weight": inner[f"{theirs}/scale"]} if f"{theirs}/scale" in inner else {}


def _adaptive_group_norm(inner: Weights, theirs: str, ours: str) -> Weights:
    if f"{theirs}/Dense_0/kernel" in inner:
        return _linear(inner, f"{theirs}/Dense_0", f"{ours}.modulation")
    return _affine(inner, f"{theirs}/GroupNorm_0", f"{ours}.norm")


def _convolution(inner: Weights, theirs: str, ours: str) -> Weights:
    return {f"{ours}.weight": inner[f"{theirs}/kernel"].permute(3, 2, 0, 1), f"{ours}.bias": inner[f"{theirs}/bias"]}


def _ends(inner: Weights) -> Weights:
    return _convolution(inner, "Conv_0", "conv_in") | _convolution(inner, "Conv_1", "conv_out")


def _convolutions(inner: Weights, theirs: str, ours: str) -> Weights:
    first = _convolution(inner, f"{theirs}/Conv_0", f"{ours}.conv1")
    return first | _convolution(inner, f"{theirs}/Conv_1", f"{ours}.conv2")


def _shortcut(inner: Weights, theirs: str, ours: str) -> Weights:
    if f"{theirs}/kernel" not in inner:
        return {}
    kernel = inner[f"{theirs}/kernel"].T[:, :, None, None]
    return {f"{ours}.shortcut.weight": kernel, f"{ours}.shortcut.bias": inner[f"{theirs}/bias"]}
