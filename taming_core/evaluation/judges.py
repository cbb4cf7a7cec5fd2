"""Frozen networks that score images and that no training has used: two for the object, one for the prompt.

The object judge measures whether a whole image shows the same object (DINO and CLIP-I in Ruiz et al., "DreamBooth",
2023, section 4.2), the strict judge whether the cut-out and enlarged object does, and the text judge whether an image
follows its prompt, by choosing among prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer

from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT
from taming_core.params.sections import EvaluateParams
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

SIDE, FILL = (
    128,
    0.92,
)  # side in pixels of a strict judge's input, and the share of it that the object's longer side fills
ROTATIONS = range(-30, 31, 6)  # degrees
BATCH_SIZE = 32  # images per forward pass; changes scores by rounding only

Judge = Callable[[Sequence[Image.Image]], NDArray[np.float32]]
JudgeRole = Literal["judge", "strict_judge"]  # the key in params, and the folder of the shipped network


@dataclass(frozen=True)
class ImageJudge:
    """An image network with its preprocessing; calling it gives features of unit length."""

    model: Any  # any transformers vision model
    preprocess: Callable[[Sequence[Image.Image]], Tensor]

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Features (N, E), float32 of unit length, of N images of any sizes; for cut-outs see `composite_on_grey`."""
        chunks = [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]
        return normalize_rows(
            [image_features(self.model, self.preprocess(chunk).to(self.model.device)) for chunk in chunks]
        )

    @property
    def acceptance_threshold(self) -> float | None:
        """The cosine from which two images count as one object: `accepted_from` of the model's config, or None."""
        return getattr(self.model.config, "accepted_from", None)


@dataclass(frozen=True)
class TextJudge:
    """A CLIP-like model: features of images and texts in one space, all of unit length."""

    images: Judge
    model: Any
    tokenizer: Any

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Features (M, E) of M texts, truncated; a tokenizer without the token `<object>` gets the word "object"."""
        has_token = OBJECT in self.tokenizer.get_vocab()
        texts = list(texts) if has_token else [t.replace(OBJECT, "object") for t in texts]
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.model.device)
        return normalize_rows([self.model.get_text_features(input_ids=tokens.input_ids).pooler_output])


@dataclass(frozen=True)
class Judges:
    """The scoring networks of an evaluation."""

    objects: ImageJudge
    texts: TextJudge
    strict: ImageJudge | None  # of the cut-out object; None where its measures are left out


def load_judges(p: EvaluateParams, device: str) -> Judges:
    """The networks that the params name.

    Raises:
        TamingError: one of them cannot be loaded.
    """
    strict = None if p.strict_judge is None else load_judge(p.strict_judge, device, "strict_judge")
    return Judges(load_judge(p.judge, device), load_text_judge(p.text_judge, device), strict)


def load_judge(spec: str, device: str, role: JudgeRole = "judge", key: str | None = None) -> ImageJudge:
    """Load an image judge, whose features are similar for images of one object.

    `spec` is `mini`, a folder, or a hub name: DINOv2, CLIP, or any vision model of transformers. The features of a
    classifier are its logits. Raises TamingError if there is no such model; the message names `key`, that of the role.
    """
    source, key = source_of(spec, MINI / role), key or f"evaluate.{role}"
    with no_progress_bars(), as_taming_error(source, "judge", key):
        architectures: Sequence[str] = cast(Any, AutoConfig).from_pretrained(source).architectures or [""]
    kind = AutoModelForImageClassification if architectures[0].endswith("ForImageClassification") else AutoModel
    model = load_network(kind, source, "judge", key, optional_part="pooler")
    with no_progress_bars(), as_taming_error(source, "judge", key):
        return ImageJudge(model.to(device), preprocessing(source, spec == "mini"))


def load_text_judge(spec: str, device: str, key: str = "evaluate.text_judge") -> TextJudge:
    """Load a text judge, which compares images with texts.

    `spec` is `mini`, a folder, or a hub name of a model with `get_text_features`, such as CLIP. Raises TamingError if
    there is no such model; the message names `key`.
    """
    source, what = source_of(spec, MINI / "clip"), "judge of texts"
    model = load_network(AutoModel, source, what, key)
    if not hasattr(model, "get_text_features"):
        raise TamingError(f"{spec} has no text encoder. Set {key} to mini or to a CLIP model.")
    with no_progress_bars(), as_taming_error(source, what, key):
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(source)
        images = ImageJudge(model.to(device), preprocessing(source, spec == "mini"))
    return TextJudge(images, model, tokenizer)


def preprocessing(source: str, mini: bool) -> Callable[[Sequence[Image.Image]], Tensor]:
    """A function from images of any sizes to the model's input pixels: by its own processor, or by that of `mini`."""
    if mini:
        return preprocess_mini
    processor = cast(Any, AutoImageProcessor).from_pretrained(source)

    def preprocess(images: Sequence[Image.Image]) -> Tensor:
        return processor(images=[i.convert("RGB") for i in images], return_tensors="pt")["pixel_values"]

    return preprocess


def preprocessing_record(spec: str) -> dict[str, Any]:
    """What `preprocessing` does to images: the config of the judge's own processor, or that of `mini` in its words."""
    if spec == "mini":
        return {"size": [128, 128], "resample": "bicubic", "range": [-1, 1]}
    return cast(Any, AutoImageProcessor).from_pretrained(source_of(spec, MINI)).to_dict()


def preprocess_mini(images: Sequence[Image.Image]) -> Float[Tensor, "n 3 128 128"]:
    """Images of any sizes, resized to 128 x 128 pixels, in [-1, 1]."""
    small = [np.asarray(i.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC), np.float32) for i in images]
    return torch.as_tensor(np.stack(small)).permute(0, 3, 1, 2) / 127.5 - 1


def image_features(model: Any, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n features"]:
    """Features of a vision model: CLIP's projection, a classifier's logits, else the pooled output.

    A model whose config has `by_place` gives all its last hidden states, flattened, so that features are compared
    position by position.
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


def normalize_rows(chunks: Sequence[Tensor]) -> NDArray[np.float32]:
    """The rows of all chunks, each scaled to length 1, float32 on the CPU."""
    return F.normalize(torch.cat(list(chunks)).float(), dim=-1).cpu().numpy()


def composite_on_grey(subject: Image.Image) -> Image.Image:
    """A cut-out (RGBA) on mid-grey, as in training, so that judges get the same input as the encoder; RGB."""
    ground = Image.new("RGBA", subject.size, (128, 128, 128, 255))
    return Image.alpha_composite(ground, subject.convert("RGBA")).convert("RGB")


def pose_images(subject: Image.Image) -> list[Image.Image]:
    """A cut-out (RGBA) in every rotation, mirrored and not, cropped and enlarged on mid-grey; SIDE pixels, RGB.

    For judges that compare position by position: the most similar pose is taken.
    """
    return [_posed_image(source, angle) for source in (subject, ImageOps.mirror(subject)) for angle in ROTATIONS]


def _posed_image(subject: Image.Image, degrees: int) -> Image.Image:
    turned = subject.convert("RGBA").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    opaque = Image.fromarray(np.asarray(turned)[..., 3] > 127)
    cut = turned.crop(opaque.getbbox() or turned.getbbox())
    side = round(max(cut.size) / FILL)
    square = Image.new("RGBA", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return composite_on_grey(square.resize((SIDE, SIDE), Image.Resampling.HAMMING))
