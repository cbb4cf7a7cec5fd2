"""What of a text is beyond the length of a text encoder, which reads a fixed number of tokens and no more."""

from collections.abc import Iterator, Sequence
from typing import Any

BATCH = 1024  # texts that are tokenized together: their tokens take a hundred times the memory of the texts


def words_beyond(tokenizer: Any, texts: Sequence[str], length: int) -> list[str]:
    """The end of each text that `length` tokens, special ones included, have no room for; "" where all of it fits.

    Args:
        tokenizer: one of `transformers`.
        texts: any.
        length: the number of tokens that the text encoder reads.
    """
    room = length - tokenizer.num_special_tokens_to_add()
    spans = _token_spans(tokenizer, texts)
    return [text[s[room][0] :].strip() if len(s) > room else "" for text, s in zip(texts, spans, strict=True)]


def _token_spans(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[tuple[int, int]]]:
    """The first character, and one past the last, of each token of each text."""
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        yield from tokenizer(batch, add_special_tokens=False, return_offsets_mapping=True, verbose=False).offset_mapping
