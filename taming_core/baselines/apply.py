"""Draw with a baseline: its weights in a pipeline for a while, and its words in prompts."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from taming_core.baselines import dreambooth, dreambooth_lora, textual_inversion
from taming_core.baselines.record import read_record
from taming_core.images.families import TamingPipeline
from taming_core.language.placeholder import fill_placeholder

LOADED = {
    "textual-inversion": textual_inversion.loaded,
    "dreambooth": dreambooth.loaded,
    "dreambooth-lora": dreambooth_lora.loaded,
}


@contextmanager
def applied(pipeline: TamingPipeline, folder: Path) -> Generator[Callable[[str], str]]:
    """Within the block the pipeline draws with a baseline's weights; afterwards it is as before, to the bit.

    The block gets a function from a prompt with `<object>` to the method's own: "a photo of a sks robot on the beach".

    Args:
        pipeline: of the base that the baseline was trained on, in any precision.
        folder: that `train` wrote, or a checkpoint in it.

    Raises:
        TamingError: the folder holds no baseline.
    """
    record = read_record(folder)
    with LOADED[record.method](pipeline, folder):
        yield lambda prompt: fill_placeholder(prompt, record.words)
