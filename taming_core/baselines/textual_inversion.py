"""Textual Inversion (Gal et al., "An Image is Worth One Word", 2022): the embedding of a new word for the object.

The CLIP text encoders learn it, each its own rows; T5 reads the word as it is spelled. Files are those of diffusers'
example scripts: `learned_embeds.safetensors`, and `learned_embeds_2.safetensors` for the second text encoder.
"""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter
from torch import Tensor, nn

from taming_core.baselines.methods import SUBJECT, class_noun, subject_tokens
from taming_core.baselines.tuned import Tuned
from taming_core.bases.family import tokenizer_of
from taming_core.images.families import TamingPipeline
from taming_core.params.baseline import BaselineParams

Rows = Mapping[str, nn.Parameter]  # of the new word (vectors, D), by the text encoder's name


class ExtendedEmbedding(nn.Module):
    """An embedding table, and rows of their own for the ids from `first` on."""

    def __init__(self, table: nn.Module, rows: nn.Parameter, first: int) -> None:
        super().__init__()
        self.table, self.rows, self.first = table, rows, first

    def forward(self, ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """The embeddings of token ids."""
        known, new = self.table(ids.clamp(max=self.first - 1)), (ids - self.first).clamp(min=0)
        return torch.where((ids >= self.first)[..., None], self.rows[new].to(known.dtype), known)


@contextmanager
def tuned(pipeline: TamingPipeline, noun: str | None, p: BaselineParams) -> Generator[Tuned]:
    """The rows of the new word, at first those of the class noun."""
    rows = initial_rows(pipeline, class_noun(noun), p.textual_inversion.vectors)
    with with_word(pipeline, rows):
        yield Tuned([*rows], [*rows.values()], True, partial(save, rows))


@contextmanager
def loaded(pipeline: TamingPipeline, folder: Path) -> Generator[None]:
    """Within the block the pipeline knows the word that was saved to `folder`."""
    found = {name: folder / file_name(name) for name in pipeline.family.trainable_text_encoders}
    rows = {name: nn.Parameter(load_file(file)[SUBJECT]) for name, file in found.items()}
    for row in rows.values():
        row.data = row.data.to(pipeline.device)
    with with_word(pipeline, rows):
        yield


def initial_rows(pipeline: TamingPipeline, noun: str, vectors: int) -> dict[str, nn.Parameter]:
    """The mean embedding of the noun's tokens, once for each vector, in float32."""
    return {name: nn.Parameter(noun_embedding(pipeline, name, noun).float().repeat(vectors, 1))
            for name in pipeline.family.trainable_text_encoders}  # fmt: skip


@torch.no_grad()
def noun_embedding(pipeline: Any, text_encoder: str, noun: str) -> Float[Tensor, "1 width"]:
    """The mean embedding of a noun's tokens in a text encoder."""
    table = getattr(pipeline, text_encoder).get_input_embeddings()
    ids = getattr(pipeline, tokenizer_of(text_encoder))(noun, add_special_tokens=False, return_tensors="pt").input_ids
    return table(ids.to(table.weight.device)).mean(1)


@contextmanager
def with_word(pipeline: TamingPipeline, rows: Rows) -> Generator[None]:
    """Within the block these text encoders and their tokenizers know the new word, with these embeddings."""
    with ExitStack() as stack:
        for name, of_encoder in rows.items():
            stack.enter_context(_extended(pipeline, name, of_encoder))
        yield


@contextmanager
def _extended(pipeline: Any, text_encoder: str, rows: nn.Parameter) -> Generator[None]:
    encoder, tokenizer = getattr(pipeline, text_encoder), getattr(pipeline, tokenizer_of(text_encoder))
    table, extended = encoder.get_input_embeddings(), deepcopy(tokenizer)
    extended.add_tokens(subject_tokens(len(rows)))
    encoder.set_input_embeddings(ExtendedEmbedding(table, rows, extended.convert_tokens_to_ids(SUBJECT)))
    setattr(pipeline, tokenizer_of(text_encoder), extended)
    try:
        yield
    finally:
        encoder.set_input_embeddings(table)
        setattr(pipeline, tokenizer_of(text_encoder), tokenizer)


def save(rows: Rows, folder: Path, _whole: bool) -> int:
    """Write the rows of each text encoder to a file of its own, as diffusers loads them; returns their bytes."""
    for name, weight in rows.items():
        save_file({SUBJECT: weight.detach().cpu().contiguous()}, folder / file_name(name))
    return sum(weight.nbytes for weight in rows.values())


def file_name(text_encoder: str) -> str:
    """The file of a text encoder's rows.

    >>> file_name("text_encoder"), file_name("text_encoder_2")
    ('learned_embeds.safetensors', 'learned_embeds_2.safetensors')
    """
    return f"learned_embeds{text_encoder.removeprefix('text_encoder')}.safetensors"
