"""The object encoder E: a photo of a subject to K tokens (docs/explanation/method.md; Jia et al., 2023, section 3)."""

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config  # pyright: ignore[reportUnknownVariableType]  # untyped
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterFaceIDImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
    get_2d_sincos_pos_embed,  # pyright: ignore[reportUnknownVariableType]  # untyped
)
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn

from taming_core.bases.family import Family
from taming_core.errors import TamingError
from taming_core.model.attention import LAYERS
from taming_core.model.collage import CollageLayer, CollageSize, pack, packed_rows, unpack
from taming_core.model.towers import new_tower, patch_states

POOLED = ("linear", "mlp")  # projectors of the tower's pooled output


class ObjectEncoder(ModelMixin, ConfigMixin):
    """A vision tower, a projector, and the layers that the injection adds to the denoiser's attention.

    For `reference` only the added layers: there the embedding is the latents of the subject (`encode_subjects`), which
    the denoiser itself processes.

    Args:
        tower: the config of the tower, a CLIP, DINOv2 or SigLIP vision model, as a dict; None for `reference`.
        projector: `full` (one token per patch), `linear` or `mlp` (from the pooled output), `resampler` (perceiver
            over the penultimate hidden states); None for `reference`.
        tokens: K, identity tokens per object; for `full` the number of patches, for `reference` that of latent pixels.
        width: D, the width of the prompt embeddings; for `reference` the channels of the latents.
        injection: the network design (docs/explanation/method.md section 3).
        layers: name and channels of each attention layer of the denoiser that sees the object; None for all.
        mean, std: of the tower's training images in [0, 1], per channel.
        size: side of the subject in pixels; None for that of the tower's training images.
        background: of the subject, `removed` or `kept`.
        captions: the scheme of the training captions.
        binding: the width of the prompt embeddings that bind an object to its `<object>`; None for an encoder to which
            the order of several objects makes no difference (`Binding`).
        collage: what the denoiser's first layer needs of a collage (`CollageSize`); None without one.
        positions: whether each token says where its patch is (`Positions`); only for `full`.

    Raises:
        TamingError: the projector is `full` and `tokens` is not the number of patches, or `positions` are asked of
            another projector.
    """

    @register_to_config
    def __init__(
        self,
        tower: dict[str, Any] | None,
        projector: str | None,
        tokens: int,
        width: int,
        injection: str,
        layers: dict[str, int] | None = None,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),  # noqa: ARG002  (read from the config)
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),  # noqa: ARG002
        size: int | None = None,
        background: str = "removed",  # noqa: ARG002
        captions: str = "object_token",  # noqa: ARG002
        binding: int | None = None,
        positions: bool = False,
        collage: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if tower is not None and projector is not None:
            self.vision = new_tower(tower)
            config = self.vision.config
            patches = ((size or config.image_size) // config.patch_size) ** 2
            if projector == "full" and tokens != patches:
                raise TamingError(
                    f"The projector 'full' gives {patches} tokens, not {tokens}. Set tokens to {patches}."
                )
            self.projection: Any = make_projector(projector, config.hidden_size, tokens, width)
            for bias in frozen_zero_biases(self):
                nn.init.zeros_(bias)
        kind = LAYERS.get(injection)
        added = {} if kind is None or layers is None else layers
        self.injected = nn.ModuleDict(
            {n.replace(".", "-"): kind(channels if injection == "reference" else width, channels)
             for n, channels in added.items() if kind is not None}
        )  # fmt: skip
        self.bindings = nn.ModuleDict()
        if binding is not None:
            self.add_binding(binding)
        self.position_map: Positions | None = None
        if positions:
            self.add_positions()
        self.collage_layer: CollageLayer | None = None
        if collage is not None:
            self.add_collage(CollageSize(*collage))

    # The import path of this class in saved pipelines; it stays the same when the file moves.
    __module__ = "taming_core"

    @property
    def captions(self) -> str:
        """The scheme of its training captions; folders written before 0.1.0 call class nouns "plain"."""
        return "class_noun" if self.config["captions"] == "plain" else self.config["captions"]

    @property
    def image_size(self) -> int:
        """Side of the subject image in pixels."""
        return self.config["size"] or self.vision.config.image_size

    def forward(
        self,
        subject: Float[Tensor, "batch 3 size size"],
        features: Float[Tensor, "batch *states features"] | None = None,
        cached: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """The object embedding z = E(o); for `reference` see `encode_subjects`.

        Args:
            subject: the subject on a mid-grey background, in [-1, 1].
            features: `tower_features` of the `cached` subjects; the tower runs on the other subjects only.
            cached: which subjects have cached features; on the CPU.
        """
        if features is None or cached is None:
            return self.placed(self.projection(self.tower_features(subject)))
        if not bool(cached.all()):
            missing = (~cached).nonzero().flatten().to(subject.device, non_blocking=True)
            features = features.index_put((missing,), self.tower_features(subject[missing]).to(features.dtype))
        return self.placed(self.projection(features))

    def placed(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """The tokens with the positions of their patches, if the encoder has them."""
        return tokens if self.position_map is None else self.position_map(tokens)

    def tower_features(self, subject: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch *states features"]:
        """The tower output that the projector reads: the pooled output (B, C), or hidden states (B, N, C)."""
        mean, std = (tensor_like(subject, self.config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        pixels = ((subject + 1) / 2 - mean) / std
        if self.config["projector"] == "resampler":  # penultimate, as in IP-Adapter Plus
            return self.vision(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        states = self.vision(pixel_values=pixels)
        pooled = self.config["projector"] in POOLED
        return states.pooler_output if pooled else patch_states(self.vision, states.last_hidden_state)

    def add_positions(self) -> None:
        """Add an untrained layer that tells each token where its patch is, unless the encoder has one.

        Raises:
            TamingError: the tokens stand for no patches.
        """
        untyped: Any = self
        config: dict[str, Any] = untyped.config
        if config["projector"] != "full":
            raise TamingError("train.positions must be false unless the projector is full: no other's tokens stand for "
                              "places of the photo.")  # fmt: skip
        if self.position_map is None:
            self.position_map = Positions(config["tokens"], config["width"])
            untyped.register_to_config(positions=True)

    def add_collage(self, size: CollageSize) -> None:
        """Add an untrained layer for the collage, unless the encoder has one."""
        if self.collage_layer is None:
            untyped: Any = self
            self.collage_layer = CollageLayer(size)
            untyped.register_to_config(collage=list(size))

    def add_binding(self, text_width: int) -> None:
        """Add untrained layers that bind each object to its `<object>`, unless the encoder has them."""
        if len(self.bindings):
            return
        untyped: Any = self
        config: dict[str, Any] = untyped.config
        channels = config["layers"] if config["injection"] == "reference" else {"tokens": config["width"]}
        self.bindings.update({n.replace(".", "-"): Binding(text_width, c) for n, c in channels.items()})
        untyped.register_to_config(binding=text_width)

    def bind(
        self, name: str, states: Float[Tensor, "batch count width"], tokens: Float[Tensor, "batch _ channels"]
    ) -> Float[Tensor, "batch _ channels"]:
        """Bind the tokens of objects to their `<object>`; unchanged if the encoder does not bind.

        Args:
            name: `tokens`, or for `reference` the layer that the features are of.
            states: the prompt embeddings of each `<object>`.
            tokens: of the objects, one after another.
        """
        if self.config["binding"] is None:
            return tokens
        binding: Any = self.bindings[name.replace(".", "-")]
        return binding(states, tokens)

    def denoiser_layers(self) -> dict[str, nn.Module]:
        """The injected layers by the name of their attention layer in the denoiser."""
        return {name.replace("-", "."): layer for name, layer in self.injected.items()}


class Positions(nn.Module):
    """A linear map of the sine and cosine of a patch's row and column, which is added to its token.

    Attention does not depend on the order of its keys, and towers that were trained to know an object in any pose have
    lost where a patch is. Sines and cosines as in Vaswani et al. (2017), half of them of the row, half of the column
    (Dosovitskiy et al., 2021); the map is our choice, so that an untrained layer changes nothing.
    """

    FEATURES = 64

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.side = isqrt(tokens)
        self.linear = nn.Linear(self.FEATURES, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """The tokens, row by row, with the positions of their patches."""
        # Not a buffer: those that are not saved have no values after `from_pretrained`.
        places = get_2d_sincos_pos_embed(self.FEATURES, self.side, output_type="pt", device=tokens.device)
        return tokens + self.linear(places.to(self.linear.weight.dtype)).to(tokens.dtype)


class Binding(nn.Module):
    """A linear map of the prompt embedding of `<object>`, which is added to all tokens of its object.

    Attention does not depend on the order of its keys. With several objects in a prompt, this tells whose tokens belong
    to which `<object>`. Our choice, as the fusion of FastComposer (Xiao et al., 2023, section 4.1), but added, so that
    an untrained layer changes nothing. Normalized, since the scale of prompt embeddings varies between text encoders.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.linear = nn.Linear(width, channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(
        self, states: Float[Tensor, "batch count width"], tokens: Float[Tensor, "batch _ channels"]
    ) -> Float[Tensor, "batch _ channels"]:
        """The tokens of `count` objects, equally many each, bound to their `<object>` with these prompt embeddings."""
        added = self.linear(self.norm(states)).to(tokens.dtype)
        return tokens + added.repeat_interleave(tokens.shape[1] // added.shape[1], 1)


def encode_subjects(
    encoder: ObjectEncoder,
    family: Family,
    subject: Float[Tensor, "batch 3 size size"],
    features: Float[Tensor, "batch *states features"] | None = None,
    cached: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch tokens width"]:
    """The object embedding of every design: the encoder's, or for `reference` the pixels of the subject's latents.

    For an encoder with a collage, rows with the subject's latents follow (`collage.pack`). Arguments as in
    `ObjectEncoder.forward`.
    """
    if encoder.config["injection"] == "reference":
        latents = subject_latents(encoder, family, subject).to(subject.dtype)
        return latents.flatten(2).transpose(1, 2)
    tokens = encoder(subject, features, cached)
    if encoder.config["collage"] is None:
        return tokens
    return pack(tokens, subject_latents(encoder, family, subject).to(tokens.dtype))


@torch.no_grad()
def subject_latents(
    encoder: ObjectEncoder, family: Family, subject: Float[Tensor, "batch 3 size size"]
) -> Float[Tensor, "batch channels side side"]:
    """The latents of subjects, at the largest size below theirs that the autoencoder takes."""
    size = latents_side(encoder, family) * family.vae_scale_factor
    if size != subject.shape[-1]:
        subject = F.interpolate(subject, (size, size), mode="area")
    return family.scale_latents(family.encode(subject).mean)


def latents_side(encoder: ObjectEncoder, family: Family) -> int:
    """The side of a subject's latents."""
    return encoder.image_size // family.size_multiple * (family.size_multiple // family.vae_scale_factor)


def split_collage(
    encoder: ObjectEncoder, family: Family, embeds: Float[Tensor, "objects _ width"]
) -> tuple[Float[Tensor, "objects _ width"], Float[Tensor, "objects channels side side"] | None]:
    """The tokens of objects, and for an encoder with a collage the latents of each object's first photo."""
    if encoder.config["collage"] is None:
        return embeds, None
    tokens, side = encoder.config["tokens"], latents_side(encoder, family)
    rows = tokens + packed_rows(family.latent_channels * side * side, embeds.shape[2])
    photos = embeds.reshape(-1, rows, embeds.shape[2])
    split, latents = unpack(photos, tokens, family.latent_channels, side)
    return split.reshape(len(embeds), -1, embeds.shape[2]), latents[:: embeds.shape[1] // rows]


def tensor_like(like: Tensor, values: Sequence[float]) -> Float[Tensor, " values"]:
    """The values with dtype and device of `like`; unlike `new_tensor` without synchronizing with the device."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def frozen_zero_biases(encoder: ObjectEncoder) -> list[nn.Parameter]:
    """Biases of the projector that stay zero, so that it maps an embedding of zeros to tokens of zeros.

    That is how diffusers computes the null embedding of a base IP-Adapter (`taming_core/exports/ip_adapter.py`).
    """
    if (encoder.config["injection"], encoder.config["projector"]) != ("decoupled", "linear"):
        return []
    return [encoder.projection.image_embeds.bias, encoder.projection.norm.bias]


def make_projector(kind: str, features: int, tokens: int, width: int) -> nn.Module:
    """A projector, in diffusers' classes, from a tower output of width `features` to (B, tokens, width)."""
    if kind == "full":
        return IPAdapterFullImageProjection(features, width)
    if kind == "linear":
        return ImageProjection(image_embed_dim=features, cross_attention_dim=width, num_image_text_embeds=tokens)
    if kind == "mlp":
        return IPAdapterFaceIDImageProjection(features, width, num_tokens=tokens)
    # `load_ip_adapter` expects depth 4, heads of 64 channels and a feed-forward ratio of 4.
    return IPAdapterPlusImageProjection(
        embed_dims=features, output_dims=width, hidden_dims=width, depth=4, dim_head=64, heads=max(1, width // 64),
        num_queries=tokens, ffn_ratio=4,
    )  # fmt: skip
