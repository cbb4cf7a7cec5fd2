"""Stable Diffusion 3 and 3.5: a flow-matching transformer over image and text (Esser et al., 2024)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from taming_core.bases import limits
from taming_core.bases.family import Text
from taming_core.bases.transformer import Transformer

T5_LENGTH = limits.T5_LENGTHS["SD3Transformer2DModel"]


class StableDiffusion3(Transformer):
    """Two CLIPs, concatenated along the width, followed by T5, which may be omitted to save memory."""

    text_encoder_names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    pipeline_name = "StableDiffusion3Pipeline"

    @property
    def lengths(self) -> list[int]:
        lengths = super().lengths
        return [*lengths[:2], *(min(length, T5_LENGTH) for length in lengths[2:])]

    @property
    def text_length(self) -> int:
        lengths = self.lengths
        return lengths[0] + (lengths[2] if len(lengths) > 2 else T5_LENGTH)

    @property
    def first_layer(self) -> nn.Module:
        return self.denoiser.pos_embed.proj

    @property
    def first_channels(self) -> int:
        return self.denoiser.pos_embed.proj.out_channels

    @property
    def patch(self) -> int:
        return self.denoiser.config["patch_size"]

    @property
    def size_multiple(self) -> int:
        return limits.patch_multiple(self.denoiser.config, self.vae.config)

    @property
    def max_size(self) -> int:
        return limits.longest_side(self.denoiser.config, self.vae.config)

    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        first, second, *rest = self.split_token_ids(ids)
        outputs = [
            self.components[name](input_ids=clip_ids, output_hidden_states=True)
            for name, clip_ids in (("text_encoder", first), ("text_encoder_2", second))
        ]
        clip = torch.cat([o.hidden_states[-2] for o in outputs], -1)
        clip = F.pad(clip, (0, self.width - clip.shape[-1]))
        if rest:
            t5 = self.components["text_encoder_3"](input_ids=rest[0]).last_hidden_state
        else:
            t5 = clip.new_zeros(len(ids), T5_LENGTH, self.width)
        return Text(torch.cat([clip, t5.to(clip.dtype)], 1), torch.cat([o.text_embeds for o in outputs], -1))

    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | Float[Tensor, " batch"] | None = None,  # noqa: ARG002  (no guidance-distilled checkpoint in this family)
        sizes: Float[Tensor, "batch 4"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "batch channels rows columns"]:
        return self.denoiser(
            hidden_states=latents, timestep=times, encoder_hidden_states=text.states, pooled_projections=text.pooled,
            return_dict=False,
        )[0]  # fmt: skip
