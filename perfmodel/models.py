"""Layers and hidden size of public models, which a profile of one layer does not say.

Source: `num_hidden_layers` and `hidden_size` of each model's own config.json, as published by its makers on Hugging
Face. A name matches with what follows a dash left out (`-Instruct`, `-Base`, `-FP8`, a date): those share the shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.profile import ProfileError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What multiplies the times of one layer; `experts` for a mixture of experts."""

    layers: int
    hidden: int
    experts: bool = False


SHAPES = {
    "Llama-2-7b": ModelShape(32, 4096),
    "Llama-2-13b": ModelShape(40, 5120),
    "Llama-2-70b": ModelShape(80, 8192),
    "Llama-3-8B": ModelShape(32, 4096),
    "Llama-3-70B": ModelShape(80, 8192),
    "Llama-3.1-8B": ModelShape(32, 4096),
    "Llama-3.1-70B": ModelShape(80, 8192),
    "Llama-3.1-405B": ModelShape(126, 16384),
    "Llama-3.2-1B": ModelShape(16, 2048),
    "Llama-3.2-3B": ModelShape(28, 3072),
    "Llama-3.3-70B": ModelShape(80, 8192),
    "Qwen2.5-0.5B": ModelShape(24, 896),
    "Qwen2.5-1.5B": ModelShape(28, 1536),
    "Qwen2.5-3B": ModelShape(36, 2048),
    "Qwen2.5-7B": ModelShape(28, 3584),
    "Qwen2.5-14B": ModelShape(48, 5120),
    "Qwen2.5-32B": ModelShape(64, 5120),
    "Qwen2.5-72B": ModelShape(80, 8192),
    "Qwen3-0.6B": ModelShape(28, 1024),
    "Qwen3-1.7B": ModelShape(28, 2048),
    "Qwen3-4B": ModelShape(36, 2560),
    "Qwen3-8B": ModelShape(36, 4096),
    "Qwen3-14B": ModelShape(40, 5120),
    "Qwen3-32B": ModelShape(64, 5120),
    "Qwen3-30B-A3B": ModelShape(48, 2048, experts=True),
    "Qwen3-235B-A22B": ModelShape(94, 4096, experts=True),
    "Mistral-7B": ModelShape(32, 4096),
    "Mistral-Nemo": ModelShape(40, 5120),
    "Mistral-Small-24B": ModelShape(40, 5120),
    "Mixtral-8x7B": ModelShape(32, 4096, experts=True),
    "Mixtral-8x22B": ModelShape(56, 6144, experts=True),
    "Phi-3-mini": ModelShape(32, 3072),
    "Phi-3-medium": ModelShape(40, 5120),
    "Phi-3.5-mini": ModelShape(32, 3072),
    "Phi-3.5-MoE": ModelShape(32, 4096, experts=True),
    "phi-4": ModelShape(40, 5120),
    "Phi-4-mini": ModelShape(32, 3072),
}
_BY_NAME = {name.lower(): shape for name, shape in SHAPES.items()}


def model_shape(model: str) -> ModelShape:
    """The shape of a model by its name, with or without its owner. Raises ProfileError for an unknown one."""
    name = model.rpartition("/")[2].lower().removeprefix("meta-")
    while name:
        if name in _BY_NAME:
            return _BY_NAME[name]
        name = name.rpartition("-")[0]
    raise ProfileError(
        f"model = {model!r}: expected one of {', '.join(SHAPES)}; its layers and hidden size are not known"
    )
