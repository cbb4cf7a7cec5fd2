"""The captions of the training photos with classified attributes, for the cell that is trained on them.

Example:  python -m pipelines.ablation.attribute_captions --out out/ablation/attributes.parquet
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.ablation.cells import CELLS, OUT, PARAMS, load, merged, tree
from taming_core.captions.attribute_words import load_finish
from taming_core.captions.captioning import with_draft
from taming_core.captions.drafts import CaptionRequest, Draft, Finish
from taming_core.captions.matcher import load_matcher
from taming_core.language.placeholder import ObjectCaption
from taming_core.params.load import Params
from taming_core.photos.decode import read_photo
from taming_core.tables import schema
from taming_core.tables.parquet import read_column, read_rows
from taming_core.weights.device import pick_device

CELL = "attribute_words"
AT_ONCE = 32  # captions
PHOTOS = OUT / "photos"


def main(
    out: Annotated[Path, typer.Option("--out", help="The table of captions to write.")],
    photos: Annotated[Path, typer.Option("--photos", help="Folder with raw, objects and captions.")] = PHOTOS,
    cells: Annotated[Path, typer.Option("--cells", help="File with the overrides of each cell.")] = CELLS,
    reference: Annotated[Path, typer.Option("--reference", help="Params of the reference cell.")] = PARAMS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Add the attributes to the true captions, by the params of the cell."""
    p = Params.model_validate(merged(tree(reference), load(cells).cells[CELL].overrides)).caption
    where, objects = pick_device(device), photos / "objects.parquet"
    finish = load_finish(objects, where, load_matcher(p.matcher, where), p)
    assert finish is not None  # the cell names a classifier
    numbers = {name: number for number, name in enumerate(read_column(objects, "object_id"))}
    rows = read_rows(photos / "captions.parquet")
    add = partial(with_attributes, finish=finish, raw=photos / "raw", numbers=numbers)
    parts = (rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE))
    schema.write((schema.table(add(part), schema.CAPTIONS) for part in parts), schema.CAPTIONS, out)
    print(out)


def with_attributes(
    rows: Sequence[dict[str, Any]], finish: Finish, raw: Path, numbers: dict[str, int]
) -> list[schema.Row]:
    """The rows with attributes of their objects; dropped ones are unchanged.

    Args:
        rows: of the captions table.
        finish: finds and adds the attributes.
        raw: folder of the photos.
        numbers: rows of the objects table, by object_id.
    """
    kept = [row for row in rows if row["drop_reason"] is None]
    drafts = [draft_of(row) for row in kept]
    images = [read_photo(raw / row["file_name"]).image for row in kept]
    requests = [
        CaptionRequest(image, row["class"], draft, draft.words, numbers[row["object_id"]])
        for image, row, draft in zip(images, kept, drafts, strict=True)
    ]
    found = iter(finish(requests, drafts))
    return [row if row["drop_reason"] else with_draft(row, next(found)) for row in rows]


def draft_of(row: schema.Row) -> Draft:
    """The draft that a row was made of."""
    words = ObjectCaption(row["caption"], row["object_caption"], row["replaced"], row["span_start"], row["span_end"],
                          row["method"])  # fmt: skip
    return Draft(row["caption"], row["match_score"], words)


if __name__ == "__main__":
    typer.run(main)
