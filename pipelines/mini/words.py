"""The tokenizer of `mini`: whole words, for its world has few and a caption shall be short."""

from collections.abc import Iterable

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from taming_core.world.artwork import World, class_nouns
from taming_core.world.styles import STYLES
from taming_core.world.wording import COLOURS, OBJECT, PLACES, SIZES, scene_wordings, style_wordings

PAD, BOS, UNKNOWN, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
SPECIAL = (PAD, BOS, UNKNOWN, EOS, OBJECT)  # their ids are their places
LENGTH = 32  # tokens of a caption, opening and closing included


def phrases(world: World) -> Iterable[str]:
    """All that a caption of this world can say, in pieces."""
    yield from ("a", "an", "and", *COLOURS, *SIZES, *PLACES, *class_nouns())
    yield from (cutout.name for cutout in world.cutouts)
    for scene in world.scenes:
        yield from scene_wordings(scene)
    for style in STYLES:
        yield from style_wordings(style)


def vocabulary(world: World) -> dict[str, int]:
    """Word -> id: the special ones, then all others in alphabetical order."""
    said = {word for phrase in phrases(world) for word, _ in _split().pre_tokenize_str(phrase.lower())}
    return {word: i for i, word in enumerate([*SPECIAL, *sorted(said)])}


def word_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A tokenizer that knows every word of the world's captions, those of things held out among them."""
    known = vocabulary(world)
    model = Tokenizer(WordLevel(known, unk_token=UNKNOWN))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = _split()
    ends = [(BOS, known[BOS]), (EOS, known[EOS])]
    model.post_processor = TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token=PAD, bos_token=BOS, unk_token=UNKNOWN, eos_token=EOS,
        extra_special_tokens=[OBJECT], model_max_length=LENGTH, padding_side="right",
    )  # fmt: skip


def rows_of(known: PreTrainedTokenizerFast) -> int:
    """Rows of an embedding table that holds all words; GPUs multiply fastest in multiples of 8."""
    return -(-len(known) // 8) * 8


def _split() -> pre_tokenizers.PreTokenizer:
    """At white space, and a comma is a word."""
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")])
