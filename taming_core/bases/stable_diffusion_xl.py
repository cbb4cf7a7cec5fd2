"""Stable Diffusion XL: a UNet that attends to two CLIPs and is told of sizes (Podell et al., "SDXL", 2024)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.bases.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Two text encoders side by side, and the second one's summary."""

    text_encoder_names = ("text_encoder", "text_encoder_2")
    pipeline_name = "StableDiffusionXLPipeline"

    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        first, second = (
            encoder(input_ids=own, output_hidden_states=True)
            for encoder, own in zip(self.text_encoders.values(), self.split_token_ids(ids), strict=True)
        )
        # Trained on the states before the last, and on zeros in place of the empty prompt.
        said = (ids != self.token_ids([""]).to(ids.device)).any(1).to(second.text_embeds.dtype)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        return Text(states * said[:, None, None], second.text_embeds * said[:, None])

    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "batch channels rows columns"]:
        told = {"text_embeds": text.pooled, "time_ids": self.time_ids(latents)}
        return self.denoiser(latents, times, text.states, added_cond_kwargs=told, return_dict=False)[0]

    def time_ids(self, latents: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch 6"]:
        """Original size, top left corner of the crop, and target size (Podell et al., section 2.2).

        The image counts as whole and as large as it is, so that training asks for what drawing asks for.
        """
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=latents.dtype)
        return sizes.to(latents.device, non_blocking=True).expand(len(latents), -1)
