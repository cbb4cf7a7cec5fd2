"""Adding attributes to the captions of objects: cut out, classify, add the words, match again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from taming_core.captions.attributes import (
    ADDED,
    Attribute,
    Classifier,
    added,
    crop_of,
    find_attributes,
    kept,
    mismatched,
    stated,
)
from taming_core.captions.drafts import CaptionRequest, Draft, Finish, Matcher, score
from taming_core.errors import TamingError
from taming_core.params.caption import CaptionParams
from taming_core.params.sections import AttributeParams
from taming_core.photos.masks import decode_mask
from taming_core.storage.paths import AnyPath
from taming_core.tables.parquet import column_reader, iter_column

ReadMasks = Callable[[Sequence[int]], list[bytes]]  # rows of the objects table -> masks as PNG


@dataclass(frozen=True)
class AttributeSource:
    """What the attributes of objects are found with."""

    params: AttributeParams
    classify: Classifier
    read_masks: ReadMasks


def load_finish(objects: AnyPath, device: str, match: Matcher, p: CaptionParams) -> Finish | None:
    """`with_attributes` with the classifier of the params and the masks of a table; None without `p.attributes`.

    Raises:
        TamingError: there is no such classifier.
    """
    if p.attributes is None:
        return None
    from taming_core.captions.classifier import load_classifier  # imports torch

    source = AttributeSource(
        p.attributes, load_classifier(p.attributes.model, device), column_reader(objects, "mask_png")
    )
    return partial(with_attributes, source=source, match=match, p=p)


def with_attributes(
    requests: Sequence[CaptionRequest],
    drafts: Sequence[Draft],
    source: AttributeSource,
    match: Matcher,
    p: CaptionParams,
) -> list[Draft]:
    """The drafts with attributes of their objects; those that will be dropped are unchanged.

    A caption that does not match the photo any more, once it has the words, goes without them.
    """
    places = [n for n, d in enumerate(drafts) if d.words is not None and d.score >= p.match_min]
    shown = [requests[n] for n in places]
    rows = [r.row for r in shown if r.row is not None]
    masks = [decode_mask(png) for png in source.read_masks(rows)]
    sound = [n for n, mask in enumerate(masks) if mask.any()]
    places, shown = [places[n] for n in sound], [shown[n] for n in sound]
    crops = [crop_of(r.image, masks[n]) for r, n in zip(shown, sound, strict=True)]
    found = find_attributes(crops, [r.noun for r in shown], p.template, source.classify, source.params)
    bare = [_with_kept_words(drafts[n], of_object, source.params) for n, of_object in zip(places, found, strict=True)]
    final = list(drafts)
    for n, draft in zip(places, _with_added_words(shown, bare, match, p), strict=True):
        final[n] = draft
    return final


def _with_kept_words(draft: Draft, found: Sequence[Attribute], p: AttributeParams) -> Draft:
    """The draft with the words that it states of what may change, and with what else was found."""
    assert draft.words is not None
    words = kept(draft.words, p)
    return replace(draft, caption=words.caption, words=words, attributes=stated(words, found, p))


def _with_added_words(
    requests: Sequence[CaptionRequest], drafts: Sequence[Draft], match: Matcher, p: CaptionParams
) -> list[Draft]:
    """The drafts with the words that are to be added, where the captions still match the photos."""
    longer = [added(d.words, d.attributes or ()) for d in drafts if d.words is not None]
    changed = [n for n, (d, words) in enumerate(zip(drafts, longer, strict=True)) if d.words != words]
    scored = score([requests[n].image for n in changed], [longer[n].caption for n in changed], match)
    final = list(drafts)
    for n, draft in zip(changed, scored, strict=True):
        fits = draft.score >= p.match_min
        final[n] = (
            replace(draft, words=longer[n], attributes=drafts[n].attributes)
            if fits
            else replace(drafts[n], attributes=mismatched(drafts[n].attributes or ()))
        )
    return final


def require_masks(objects: AnyPath | None) -> None:
    """Raises TamingError if attributes are to be found, and no objects table has the masks to cut them out."""
    if objects is None:
        raise TamingError("caption.attributes is set, but there is no table of objects to cut them out with. Name that "
                          "of `taming detect` with --objects, or set caption.attributes to null.")  # fmt: skip


def count_added(table: AnyPath) -> int:
    """The number of words that were added to captions."""
    found = chain.from_iterable(of_object or () for of_object in iter_column(table, "attributes"))
    return sum(attribute["decision"] == ADDED for attribute in found)
