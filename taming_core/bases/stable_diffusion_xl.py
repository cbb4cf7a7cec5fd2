"""Stable Diffusion XL: a UNet with cross-attention to two CLIPs and size conditioning (Podell et al., "SDXL", 2024)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.bases.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Two text encoders, concatenated along the width, and the pooled embedding of the second."""

    text_encoder_names = ("text_encoder", "text_encoder_2")
    pipeline_name = "StableDiffusionXLPipeline"

    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        first, second = (
            encoder(input_ids=encoder_ids, output_hidden_states=True)
            for encoder, encoder_ids in zip(self.text_encoders.values(), self.split_token_ids(ids), strict=True)
        )
        # Trained on the penultimate hidden states, and on zeros for the empty prompt.
        not_empty = (ids != self.token_ids([""]).to(ids.device)).any(1).to(second.text_embeds.dtype)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        return Text(states * not_empty[:, None, None], second.text_embeds * not_empty[:, None])

    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | Float[Tensor, " batch"] | None = None,  # noqa: ARG002
        sizes: Float[Tensor, "batch 4"] | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        added = {"text_embeds": text.pooled, "time_ids": self.time_ids(latents, sizes)}
        return self.denoiser(latents, times, text.states, added_cond_kwargs=added, return_dict=False)[0]

    def time_ids(
        self, latents: Float[Tensor, "batch channels rows columns"], sizes: Float[Tensor, "batch 4"] | None = None
    ) -> Float[Tensor, "batch 6"]:
        """Original size, top left corner of the crop, and target size (Podell et al., section 2.2).

        Without `sizes` the original size is the target size, without a crop, as in sampling.
        """
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        target = torch.tensor([[height, width]], dtype=latents.dtype).to(latents.device, non_blocking=True)
        target = target.expand(len(latents), -1)
        whole = torch.cat([target, torch.zeros_like(target)], 1)
        return torch.cat([whole if sizes is None else sizes.to(latents.dtype), target], 1)
