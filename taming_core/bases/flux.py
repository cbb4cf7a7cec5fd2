"""FLUX.1: a flow-matching transformer over packed latents; "dev" is guidance-distilled (Black Forest Labs, 2024)."""

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, Int
from torch import Tensor, nn

from taming_core.bases import limits
from taming_core.bases.family import Text, time_shift
from taming_core.bases.transformer import Transformer

T5_LENGTH = limits.T5_LENGTHS["FluxTransformer2DModel"]


class Flux(Transformer):
    """States of T5, and CLIP's pooled embedding."""

    text_encoder_names = ("text_encoder", "text_encoder_2")
    pipeline_name = "FluxPipeline"
    states_encoder = limits.OBJECT_READERS["FluxTransformer2DModel"]

    @property
    def lengths(self) -> list[int]:
        clip, t5 = super().lengths
        return [clip, min(t5, T5_LENGTH)]

    @property
    def text_length(self) -> int:
        return self.lengths[1]

    @property
    def first_layer(self) -> nn.Module:
        return self.denoiser.x_embedder

    @property
    def first_channels(self) -> int:
        return self.denoiser.x_embedder.out_features

    @property
    def patch(self) -> int:
        return 2  # of `pack_latents`

    @property
    def size_multiple(self) -> int:
        return limits.packed_multiple(self.denoiser.config, self.vae.config)

    @property
    def image_size(self) -> int:
        return 128 * self.vae_scale_factor  # the transformer's config has no size; this is diffusers' default

    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        clip_ids, t5_ids = self.split_token_ids(ids)
        pooled = self.components["text_encoder"](input_ids=clip_ids).pooler_output
        return Text(self.components["text_encoder_2"](input_ids=t5_ids).last_hidden_state, pooled)

    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | Float[Tensor, " batch"] | None = None,
        sizes: Float[Tensor, "batch 4"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "batch channels rows columns"]:
        rows, columns = latents.shape[-2:]
        if isinstance(guidance, float | int):
            guidance = torch.full((len(latents),), guidance, device=latents.device)
        output = self.denoiser(
            hidden_states=pack_latents(latents), timestep=times.to(latents.dtype) / 1000, guidance=guidance,
            pooled_projections=text.pooled, encoder_hidden_states=text.states,
            txt_ids=latents.new_zeros(text.states.shape[1], 3), img_ids=position_ids(rows // 2, columns // 2, latents),
            return_dict=False,
        )[0]  # fmt: skip
        return unpack_latents(output, rows, columns)

    def set_timesteps(self, scheduler: Any, steps: int, device: torch.device, latents: Tensor) -> None:
        options: dict[str, Any] = dict(time_shift(scheduler, latents.shape))
        # Other schedulers compute their own sigmas.
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, device=device, **options)


def pack_latents(latents: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch patches features"]:
    """Patches of 2 x 2 latents, (B, h/2 * w/2, 4C), row by row; a patch's features are ordered channel, row, column."""
    patches = latents.unfold(2, 2, 2).unfold(3, 2, 2)  # (B, C, h/2, w/2, 2, 2)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def unpack_latents(
    patches: Float[Tensor, "batch patches features"], rows: int, columns: int
) -> Float[Tensor, "batch channels {rows} {columns}"]:
    """The inverse of `pack_latents`; `rows` and `columns` of the latents, not of the patches."""
    grid = torch.unflatten(torch.unflatten(patches, 1, (rows // 2, columns // 2)), 3, (-1, 2, 2))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def position_ids(rows: int, columns: int, like: Tensor) -> Float[Tensor, "patches 3"]:
    """The position of each patch for the rotary embedding: 0, row, column."""
    return torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float()).to(like)
