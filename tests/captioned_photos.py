"""Photos of a list, prepared and captioned by batches."""

from collections.abc import Sequence

from taming_core.captions import captioning
from taming_core.captions.captioning import CaptionSource
from taming_core.captions.drafts import Models
from taming_core.params.caption import CaptionParams
from taming_core.tables import schema


def rows_of(sources: Sequence[CaptionSource], models: Models, p: CaptionParams) -> list[schema.Row]:
    """The rows of the captions table."""
    photos = [(source, captioning.prepare(source)) for source in sources]
    batches = (photos[i : i + p.batch_size] for i in range(0, len(photos), p.batch_size))
    return [row for batch in batches for row in captioning.rows_of(batch, models, p)]
