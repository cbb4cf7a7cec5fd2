"""The embedding of `<object>` in a text encoder."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from taming_core.language.placeholder import OBJECT


def add_placeholder_token(tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> None:
    """Add `<object>` to the vocabulary if it is missing; its embedding is initialized from the word "object"."""
    if OBJECT in tokenizer.get_vocab():
        return
    untyped: Any = tokenizer
    like = untyped("object", add_special_tokens=False).input_ids
    tokenizer.add_tokens([OBJECT])
    embeddings: Any = text_encoder.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:  # T5 has unused embeddings
        embeddings = text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        embeddings.weight[tokenizer.convert_tokens_to_ids(OBJECT)] = embeddings.weight[like].mean(0)


def placeholder_embedding(tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> Tensor:
    """The row (D,) of the embedding table; writing to it changes the text encoder."""
    embeddings: Any = text_encoder.get_input_embeddings()
    return embeddings.weight.data[tokenizer.convert_tokens_to_ids(OBJECT)]
