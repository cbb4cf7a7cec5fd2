"""Frozen networks that score images and that no training has used: two for the object, one for the prompt.

The object's judge answers "is this the same thing?" (DINO and CLIP-I in Ruiz et al., "DreamBooth", 2023, section 4.2)
of whole images, the strict judge asks it of the object alone, cut out and enlarged, and the text judge answers "does
this show what was asked for?", by choosing among prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer

from taming_core.errors import TamingError
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

OBJECT = "<object>"
SIDE, FILL = 128, 0.92  # pixels of what a strict judge sees, and the object's share of it
ROTATIONS = range(-30, 31, 6)  # degrees
BATCH_SIZE = 32  # images in memory; changes no score but by rounding

Judge = Callable[[Sequence[Image.Image]], NDArray[np.float32]]
JudgeRole = Literal["judge", "strict_judge"]  # the key in params, and the folder of the one that ships


@dataclass(frozen=True)
class ImageJudge:
    """An image network with its preparation; calling it gives features of unit length."""

    model: Any  # any transformers vision model
    preprocess: Callable[[Sequence[Image.Image]], Tensor]

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Features (N, E) of N images of any sizes; for a cut-out see `on_grey`."""
        chunks = [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]
        return normalized(
            [image_features(self.model, self.preprocess(chunk).to(self.model.device)) for chunk in chunks]
        )

    @property
    def acceptance_threshold(self) -> float | None:
        """The cosine from which two pictures show the same thing, where the model's config says so."""
        return getattr(self.model.config, "accepted_from", None)


@dataclass(frozen=True)
class TextJudge:
    """A CLIP-like model: features of images and of texts in one space, all of unit length."""

    images: Judge
    model: Any
    tokenizer: Any

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Features (M, E) of M texts, cut to the model's length; one that never saw `<object>` reads "object"."""
        known = OBJECT in self.tokenizer.get_vocab()
        texts = list(texts) if known else [t.replace(OBJECT, "object") for t in texts]
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.model.device)
        return normalized([self.model.get_text_features(input_ids=tokens.input_ids).pooler_output])


def load_judge(spec: str, device: str, role: JudgeRole = "judge") -> ImageJudge:
    """A callable from images to features (N, E) of unit length, alike for images of one thing.

    `spec` is `mini`, a folder, or a hub name: DINOv2, CLIP, or any vision model of transformers. A classifier's logits
    are its features. Raises TamingError if there is no such model.
    """
    source, key = source_of(spec, MINI / role), f"evaluate.{role}"
    with no_progress_bars(), as_taming_error(source, "judge", key):
        architectures = AutoConfig.from_pretrained(source).architectures or [""]
    kind = AutoModelForImageClassification if architectures[0].endswith("ForImageClassification") else AutoModel
    model = load_network(kind, source, "judge", key, optional_part="pooler")
    with no_progress_bars(), as_taming_error(source, "judge", key):
        return ImageJudge(model.to(device), preprocessing(source, spec == "mini"))


def load_text_judge(spec: str, device: str) -> TextJudge:
    """A judge of images and texts.

    `spec` is `mini`, a folder, or a hub name of a model with `get_text_features`, such as CLIP. Raises TamingError if
    there is no such model.
    """
    source, what = source_of(spec, MINI / "clip"), "judge of texts"
    model = load_network(AutoModel, source, what, "evaluate.text_judge")
    if not hasattr(model, "get_text_features"):
        raise TamingError(f"{spec} knows no texts. Set evaluate.text_judge to mini or to a CLIP model.")
    with no_progress_bars(), as_taming_error(source, what, "evaluate.text_judge"):
        tokenizer = AutoTokenizer.from_pretrained(source)
        images = ImageJudge(model.to(device), preprocessing(source, spec == "mini"))
    return TextJudge(images, model, tokenizer)


def preprocessing(source: str, mini: bool) -> Callable[[Sequence[Image.Image]], Tensor]:
    """From images of any sizes to the pixels that the model was trained on: its own processor, or that of `mini`."""
    if mini:
        return preprocess_mini
    processor = AutoImageProcessor.from_pretrained(source)
    return lambda images: processor(images=[i.convert("RGB") for i in images], return_tensors="pt")["pixel_values"]


def preprocess_mini(images: Sequence[Image.Image]) -> Float[Tensor, "n 3 128 128"]:
    """128 pixels a side, in [-1, 1]."""
    small = [np.asarray(i.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC), np.float32) for i in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 127.5 - 1


def image_features(model: Any, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n features"]:
    """What a vision model says of an image: CLIP's projection, a classifier's logits, else the pooled output.

    A model whose config says `by_place` speaks of each place of the image on its own.
    """
    if hasattr(model, "get_image_features"):
        return model.get_image_features(pixel_values=pixels).pooler_output
    out = model(pixel_values=pixels)
    if "logits" in out:
        return out.logits
    if getattr(model.config, "by_place", False):
        return out.last_hidden_state.flatten(1)
    pooled = out.get("pooler_output")
    return (out.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)


def normalized(chunks: Sequence[Tensor]) -> NDArray[np.float32]:
    """The rows of all chunks, each of length 1."""
    return F.normalize(torch.cat(list(chunks)).float(), dim=-1).cpu().numpy()


def on_grey(subject: Image.Image) -> Image.Image:
    """A cut-out (RGBA) on the mid-grey ground that it has in training, so that judges see what the encoder sees."""
    ground = Image.new("RGBA", subject.size, (128, 128, 128, 255))
    return Image.alpha_composite(ground, subject.convert("RGBA")).convert("RGB")


def poses(subject: Image.Image) -> list[Image.Image]:
    """A cut-out (RGBA) turned and mirrored, each time as large as it gets, on mid-grey.

    For judges that compare place by place: the pose that suits best is how the thing stands in the other picture.
    """
    return [_posed(side, turn) for side in (subject, ImageOps.mirror(subject)) for turn in ROTATIONS]


def _posed(subject: Image.Image, degrees: int) -> Image.Image:
    turned = subject.convert("RGBA").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    opaque = Image.fromarray(np.asarray(turned)[..., 3] > 127)
    cut = turned.crop(opaque.getbbox() or turned.getbbox())
    side = round(max(cut.size) / FILL)
    square = Image.new("RGBA", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return on_grey(square.resize((SIDE, SIDE), Image.Resampling.HAMMING))
