"""Base class for flow-matching transformers, with joint attention of image and text in every layer."""

from taming_core.bases.family import Family


class Transformer(Family):
    """A denoiser with joint attention of image and text, which supports only some network designs."""

    denoiser_name = "transformer"
    designs = ("concat", "decoupled")

    @property
    def width(self) -> int:
        return self.denoiser.config["joint_attention_dim"]
