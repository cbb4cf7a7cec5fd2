"""What a finished baseline cost, and how stock diffusers draws with it."""

from pathlib import Path

from taming_core.baselines.record import BaselineRecord
from taming_core.baselines.textual_inversion import file_name

CALLS = {
    "textual-inversion": "load_textual_inversion",
    "dreambooth": "DiffusionPipeline.from_pretrained",
    "dreambooth-lora": "load_lora_weights",
}


def summary(record: BaselineRecord, out: Path) -> str:
    """The line to print."""
    cost = f"{record.seconds:.1f} s, {size(record.peak_bytes)} of memory, {size(record.bytes)} to keep"
    return f"{out}: {record.steps} steps, {cost}. {usage(record, out)}"


def usage(record: BaselineRecord, out: Path) -> str:
    """How stock diffusers draws with it."""
    more = [n for n in record.trained if n != "text_encoder"] if record.method == "textual-inversion" else []
    others = "".join(f" and of {name} {file_name(name)}" for name in more)
    return f'Draw with diffusers: {CALLS[record.method]}("{out}"){others}, then "a photo of a {record.words}".'


def size(count: int) -> str:
    """A number of bytes for people.

    >>> size(1024), size(41025736), size(6_900_000_000)
    ('1.0 KB', '41.0 MB', '6.9 GB')
    """
    units = ((10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
    unit, name = next((pair for pair in units if count >= pair[0]), units[-1])
    return f"{count / unit:.1f} {name}"
