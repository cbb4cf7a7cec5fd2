"""Stable Diffusion 1.5, 2.1 and `mini`: a UNet with cross-attention to one CLIP text encoder (Rombach et al., 2022)."""

from jaxtyping import Float, Int
from torch import Tensor

from taming_core.bases import limits
from taming_core.bases.family import Family, Text


class StableDiffusion(Family):
    """One text encoder, the last hidden states of which the UNet attends to."""

    denoiser_name = "unet"
    text_encoder_names = ("text_encoder",)
    designs = ("substitute", "concat", "decoupled", "gated", "reference")
    pipeline_name = "StableDiffusionPipeline"

    @property
    def width(self) -> int:
        return self.denoiser.config["cross_attention_dim"]

    @property
    def size_multiple(self) -> int:
        return limits.unet_multiple(self.denoiser.config, self.vae.config)

    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        return Text(self.components["text_encoder"](input_ids=ids).last_hidden_state, None)

    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | Float[Tensor, " batch"] | None = None,  # noqa: ARG002  (no guidance-distilled checkpoint in this family)
        sizes: Float[Tensor, "batch 4"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "batch channels rows columns"]:
        return self.denoiser(latents, times, text.states, return_dict=False)[0]
