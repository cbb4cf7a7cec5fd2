"""The object encoder E: one photo of a thing, cut out, to K identity tokens (docs/method.md, paper section 3)."""

from collections.abc import Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from taming_core.attention import DecoupledLayer
from taming_core.errors import TamingError


class ObjectEncoder(ModelMixin, ConfigMixin):
    """A CLIP vision tower, a projector, and whatever the injection adds to the denoiser's attention.

    Args:
        tower: the tower's `CLIPVisionConfig` as a dict.
        projector: `full` (one token per patch), `linear` (from the pooled output) or `resampler` (perceiver).
        tokens: K, identity tokens per object; for `full` the number of patches.
        width: D, the width of the denoiser's text states.
        injection: `concat` or `decoupled` (docs/method.md section 3).
        layers: for `decoupled`, name and channels of each cross-attention layer of the denoiser.
        mean, std: of the tower's training images in [0, 1], per channel.

    Raises:
        TamingError: `full` with another number of tokens than the tower has patches.
    """

    @register_to_config
    def __init__(
        self,
        tower: dict[str, Any],
        projector: str,
        tokens: int,
        width: int,
        injection: str,  # noqa: ARG002  (read from the config, as are mean and std)
        layers: dict[str, int] | None = None,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),  # noqa: ARG002
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),  # noqa: ARG002
    ) -> None:
        super().__init__()
        config: Any = CLIPVisionConfig(**tower)  # transformers types sizes as int, list, tuple or None
        patches = (config.image_size // config.patch_size) ** 2
        if projector == "full" and tokens != patches:
            raise TamingError(f"The projector 'full' gives {patches} tokens, not {tokens}. Set tokens to {patches}.")
        self.vision = CLIPVisionModel(config)
        self.projection = make_projector(projector, config.hidden_size, tokens, width)
        self.injected = nn.ModuleDict(
            {name.replace(".", "-"): DecoupledLayer(width, channels) for name, channels in (layers or {}).items()}
        )

    @property
    def image_size(self) -> int:
        """Side of the subject image in pixels."""
        return self.vision.config.image_size  # pyright: ignore[reportReturnType]

    def forward(self, subject: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch tokens width"]:
        """The object embedding z = E(o).

        Args:
            subject: the object on mid-grey ground, in [-1, 1].
        """
        mean, std = (subject.new_tensor(self.config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        states = self.vision(pixel_values=((subject + 1) / 2 - mean) / std)
        kind = self.config["projector"]
        return self.projection(states.pooler_output if kind == "linear" else states.last_hidden_state[:, 1:])

    def denoiser_layers(self) -> dict[str, DecoupledLayer]:
        """The injected layers by the name of the attention that they join."""
        return {name.replace("-", "."): layer for name, layer in self.injected.items()}  # pyright: ignore[reportReturnType]


def make_projector(kind: str, features: int, tokens: int, width: int) -> nn.Module:
    """From `features` wide tower states to (B, tokens, width), in diffusers' own classes."""
    if kind == "full":
        return IPAdapterFullImageProjection(features, width)
    if kind == "linear":
        return ImageProjection(image_embed_dim=features, cross_attention_dim=width, num_image_text_embeds=tokens)
    # Depth 4, heads of 64 and a feed-forward of 4 are what `load_ip_adapter` expects.
    return IPAdapterPlusImageProjection(
        embed_dims=features, output_dims=width, hidden_dims=width, depth=4, dim_head=64, heads=max(1, width // 64),
        num_queries=tokens, ffn_ratio=4,
    )  # fmt: skip
