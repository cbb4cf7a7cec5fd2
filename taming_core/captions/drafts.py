"""From photos to the captions of their objects: `<object>` in the place of the noun, and the match score."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from taming_core.captions.attributes import Attribute, Image
from taming_core.language import given, placeholder, tagged
from taming_core.language.placeholder import ObjectCaption
from taming_core.language.tagged import DEFAULT_NOUN
from taming_core.params.caption import CaptionParams

Captioner = Callable[[Sequence[Image], str], list[str]]  # photos, prefix -> captions
Asked = Callable[[Sequence[Image], Sequence[str | None]], list[str]]  # photos, classes -> captions with `<object>`
Matcher = Callable[[Sequence[Image], Sequence[str]], NDArray[np.float32]]  # photos, captions -> probabilities


@dataclass(frozen=True)
class Target:
    """The subject of a row: an object of a class, or the subject of the caption if there is no class."""

    object_id: str | None = None
    noun: str | None = None
    row: int | None = None  # in the objects table
    caption: str | None = None  # a person's of this object, with `<object>`, of the table of overrides


@dataclass(frozen=True)
class Photo:
    """A photo that is to be captioned."""

    image: Image
    targets: tuple[Target, ...]  # from left to right; none for a regularization photo
    given: str | None  # a person's caption

    @property
    def nouns(self) -> list[str | None]:
        """The classes of its objects."""
        return [target.noun for target in self.targets]


@dataclass(frozen=True)
class Draft:
    """A candidate caption and its match score."""

    caption: str
    score: float  # in [0, 1]
    words: ObjectCaption | None = None  # None if no words name the object
    attributes: tuple[Attribute, ...] | None = None  # None if none were looked for
    given: bool = False  # whether a person wrote it; then no score is too low


@dataclass(frozen=True)
class CaptionRequest:
    """The inputs for the caption of one object."""

    image: Image
    noun: str
    photo_caption: Draft
    words: ObjectCaption | None  # the words of that caption that name the object
    row: int | None = None  # in the objects table


Finish = Callable[[Sequence[CaptionRequest], Sequence[Draft]], list[Draft]]


@dataclass(frozen=True)
class Models:
    """What captions are made with."""

    describe: Captioner
    match: Matcher
    ask: Asked | None = None  # of a captioner that can be asked to write `<object>`
    finish: Finish | None = None  # may change the drafts of objects, as `attribute_words.with_attributes` does


def draft_captions(photos: Sequence[Photo], models: Models, p: CaptionParams) -> list[list[Draft]]:
    """The drafts of each photo: one per object, or one for a photo without objects."""
    shown = _with_given(photos, models, p)
    theirs = iter(_given_drafts([s for s in shown if s.given is not None], models.match, p))
    others = iter(_described_drafts([s for s in shown if s.given is None], models, p))
    return _with_overrides(photos, [next(others if s.given is None else theirs) for s in shown], models.match)


def _with_overrides(photos: Sequence[Photo], drafts: list[list[Draft]], match: Matcher) -> list[list[Draft]]:
    """The drafts of each photo, where the table of overrides has a caption of an object with that one."""
    places = [(n, i, t) for n, photo in enumerate(photos) for i, t in enumerate(photo.targets) if t.caption is not None]
    words = [tagged.parse_tagged_caption(target.caption or "", [target.noun]) for _, _, target in places]
    scored = score([photos[n].image for n, _, _ in places], [w.caption for w in words], match) if places else []
    for (n, i, _), draft, w in zip(places, scored, words, strict=True):
        drafts[n][i] = replace(draft, words=replace(w, method="override"), given=True)
    return drafts


def _with_given(photos: Sequence[Photo], models: Models, p: CaptionParams) -> list[Photo]:
    """The photos with the part of a person's captions that `p.given` asks for, and what it asks to append to them."""
    if p.given == "replace":
        return [replace(photo, given=None) for photo in photos]
    if p.given == "keep":
        return list(photos)
    images = [photo.image for photo in photos if photo.given is not None]
    scenes = (_scene_of(draft, p) for draft in score(images, models.describe(images, ""), models.match))
    return [s if s.given is None else replace(s, given=given.append(s.given, next(scenes))) for s in photos]


def _scene_of(photo_caption: Draft, p: CaptionParams) -> str:
    """The scene of a captioner's words; empty if they do not match the photo."""
    return placeholder.scene(photo_caption.caption) if photo_caption.score >= p.match_min else ""


def _given_drafts(photos: Sequence[Photo], match: Matcher, p: CaptionParams) -> Iterator[list[Draft]]:
    """The drafts of photos that a person captioned."""
    words = [given.place_objects(photo.given or "", photo.nouns, p.replace, p.template) for photo in photos]
    texts = [
        [w.caption for w in of_photo] or [tagged.fill_tagged(photo.given or "", None)]
        for of_photo, photo in zip(words, photos, strict=True)
    ]
    images = [photo.image for photo, of_photo in zip(photos, texts, strict=True) for _ in of_photo]
    scored = iter(score(images, [text for of_photo in texts for text in of_photo], match))
    for of_photo in words:
        yield [replace(next(scored), words=w, given=True) for w in of_photo or [None]]


def _described_drafts(photos: Sequence[Photo], models: Models, p: CaptionParams) -> Iterator[list[Draft]]:
    """The drafts of photos that the captioner describes."""
    whole = [photo for photo in photos if models.ask is None or not photo.targets]
    images = [photo.image for photo in whole]
    captions = score(images, models.describe(images, ""), models.match)
    if models.ask is None:
        requests = [r for photo, caption in zip(photos, captions, strict=True) for r in _requests(photo, caption, p)]
    else:
        requests = _asked_requests(photos, models.ask, models.match, p)
    drafts = word_captions(requests, models.describe, models.match, p)
    of_objects = iter(drafts if models.finish is None else models.finish(requests, drafts))
    of_photos = iter([caption for photo, caption in zip(whole, captions, strict=True) if not photo.targets])
    for photo in photos:
        yield list(islice(of_objects, len(photo.targets))) or [next(of_photos)]


def score(images: Sequence[Image], texts: Sequence[str], match: Matcher) -> list[Draft]:
    """The texts as drafts, scored against their images."""
    return [Draft(text, float(score)) for text, score in zip(texts, match(images, texts), strict=True)]


def _requests(photo: Photo, photo_caption: Draft, p: CaptionParams) -> list[CaptionRequest]:
    """One per target, with the words of the photo's caption that name it: step 1 of `word_captions`."""
    named = iter(placeholder.name_objects(photo_caption.caption, [n for n in photo.nouns if n], p.replace))
    words = [next(named) if n else placeholder.head_object(photo_caption.caption, p.replace) for n in photo.nouns]
    return [
        CaptionRequest(photo.image, target.noun or DEFAULT_NOUN, photo_caption, w, target.row)
        for target, w in zip(photo.targets, words, strict=True)
    ]


def _asked_requests(photos: Sequence[Photo], ask: Asked, match: Matcher, p: CaptionParams) -> list[CaptionRequest]:
    """One per target, with the captioner's answer for it as the photo's caption: step 1 of `word_captions`."""
    pairs = [(photo.image, target) for photo in photos for target in photo.targets]
    images, nouns = [image for image, _ in pairs], [target.noun for _, target in pairs]
    answers = ask(images, nouns)
    words = [tagged.parse_answer(answer, noun, p.replace) for answer, noun in zip(answers, nouns, strict=True)]
    plain = [tagged.fill_tagged(answer, noun) for answer, noun in zip(answers, nouns, strict=True)]
    return [
        CaptionRequest(image, target.noun or DEFAULT_NOUN, caption, w, target.row)
        for (image, target), caption, w in zip(pairs, score(images, plain, match), words, strict=True)
    ]


def word_captions(
    requests: Sequence[CaptionRequest], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[Draft]:
    """For each request the first method that yields `<object>` and a match score of at least `p.match_min`.

    1. noun: words of the photo's caption name the class; without a class, head: the subject of the caption; captioner:
       the captioner was asked for `<object>`, and wrote it.
    2. conditional: the captioner continues "a photo of a CLASS", and the class is replaced.
    3. template: `p.template`, followed by the scene of the photo's caption, if that caption matched.
    A template that does not match is returned too; its row is dropped.
    """
    drafts = [Draft(r.photo_caption.caption, r.photo_caption.score, r.words) for r in requests]
    for method in (partial(_conditional, describe=describe), _template):
        weak = [n for n, d in enumerate(drafts) if d.words is None or d.score < p.match_min]
        for n, draft in zip(weak, method([requests[n] for n in weak], match=match, p=p), strict=True):
            drafts[n] = draft
    return drafts


def _conditional(
    requests: Sequence[CaptionRequest], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[Draft]:
    """Step 2 of `word_captions`; the captioner takes one prefix per call."""
    texts = [""] * len(requests)
    for noun in dict.fromkeys(r.noun for r in requests):
        places = [n for n, r in enumerate(requests) if r.noun == noun]
        described = describe([requests[n].image for n in places], placeholder.prefix_for(noun))
        for n, text in zip(places, described, strict=True):
            texts[n] = text
    scored = score([r.image for r in requests], texts, match)
    words = [placeholder.name_object(d.caption, r.noun, p.replace) for d, r in zip(scored, requests, strict=True)]
    return [replace(d, words=w and replace(w, method="conditional")) for d, w in zip(scored, words, strict=True)]


def _template(requests: Sequence[CaptionRequest], match: Matcher, p: CaptionParams) -> list[Draft]:
    """Step 3 of `word_captions`."""
    scenes = [_scene_of(r.photo_caption, p) for r in requests]
    words = [placeholder.fill_template(p.template, r.noun, scene) for r, scene in zip(requests, scenes, strict=True)]
    scored = score([r.image for r in requests], [w.caption for w in words], match)
    return [replace(d, words=w) for d, w in zip(scored, words, strict=True)]
