"""What of a text is beyond the length of a text encoder, which reads a fixed number of tokens and no more."""

from collections.abc import Sequence
from typing import Any


def words_beyond(tokenizer: Any, texts: Sequence[str], length: int) -> list[str]:
    """The end of each text that `length` tokens, special ones included, have no room for; "" where all of it fits.

    Args:
        tokenizer: one of `transformers`.
        texts: any.
        length: the number of tokens that the text encoder reads.
    """
    if not texts:
        return []
    room = length - tokenizer.num_special_tokens_to_add()
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        text[spans[room][0] :].strip() if len(spans) > room else ""
        for text, spans in zip(texts, encoded["offset_mapping"], strict=True)
    ]
