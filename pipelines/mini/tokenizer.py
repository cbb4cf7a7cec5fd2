"""The word-level tokenizer of `mini`: captions have a few hundred different words, and stay short."""

from collections.abc import Iterable

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from taming_core.language.placeholder import OBJECT
from taming_core.world.artwork import World, class_nouns
from taming_core.world.styles import STYLES
from taming_core.world.wording import COLOURS, PLACES, SIZES, scene_wordings, style_wordings

PAD, BOS, UNKNOWN, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
SPECIAL = (PAD, BOS, UNKNOWN, EOS, OBJECT)  # ids 0 to 4
LENGTH = 32  # tokens of a caption, with BOS and EOS


def phrases(world: World) -> Iterable[str]:
    """Every phrase that a caption can contain."""
    yield from ("a", "an", "and", *COLOURS, *SIZES, *PLACES, *class_nouns())
    yield from (cutout.name for cutout in world.cutouts)
    for scene in world.scenes:
        yield from scene_wordings(scene)
    for style in STYLES:
        yield from style_wordings(style)


def vocabulary(world: World) -> dict[str, int]:
    """Word -> id: the special tokens, then all words in alphabetical order."""
    words = {word for phrase in phrases(world) for word, _ in _split().pre_tokenize_str(phrase.lower())}
    return {word: i for i, word in enumerate([*SPECIAL, *sorted(words)])}


def word_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A tokenizer with every word of the captions, held-out concepts included."""
    ids = vocabulary(world)
    model = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = _split()
    ends = [(BOS, ids[BOS]), (EOS, ids[EOS])]
    model.post_processor = TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token=PAD, bos_token=BOS, unk_token=UNKNOWN, eos_token=EOS,
        extra_special_tokens=[OBJECT], model_max_length=LENGTH, padding_side="right",
    )  # fmt: skip


def table_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """Rows of the embedding table: the number of words, rounded up to a multiple of 8 for fast matrix products."""
    return -(-len(tokenizer) // 8) * 8


def _split() -> pre_tokenizers.PreTokenizer:
    """Split at white space; a comma is a word."""
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")])
