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
    ) -> Float[Tensor, "batch channels rows columns"]:
        added = {"text_embeds": text.pooled, "time_ids": self.time_ids(latents)}
        return self.denoiser(latents, times, text.states, added_cond_kwargs=added, return_dict=False)[0]

    def time_ids(self, latents: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch 6"]:
        """Original size, top left corner of the crop, and target size (Podell et al., section 2.2).

        Original and target size are the size of the latents in pixels, without a crop, in training as in sampling.
        """
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=latents.dtype)
        return sizes.to(latents.device, non_blocking=True).expand(len(latents), -1)
