"""What the transformers of flow matching have in common: image and text attend to each other in every layer."""

from taming_core.bases.family import Family


class Transformer(Family):
    """A denoiser whose attention mixes image and text, so that only some network designs have a place in it."""

    denoiser_name = "transformer"
    designs = ("concat", "decoupled")

    @property
    def width(self) -> int:
        return self.denoiser.config["joint_attention_dim"]
