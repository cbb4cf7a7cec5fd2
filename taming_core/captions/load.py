"""The models that captions are made with, as the params name them."""

from collections.abc import Callable, Sequence
from functools import partial

from taming_core.captions.attribute_words import load_finish
from taming_core.captions.captioning import CaptionSource, rows_of
from taming_core.captions.drafts import Models
from taming_core.captions.prompted import PromptedCaptioner
from taming_core.params.caption import VLM, CaptionParams
from taming_core.photos.decode import Photo
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.vlm.chat_server import ChatServer


def load_captioning(
    objects: AnyPath | None, device: str, p: CaptionParams
) -> Callable[[Sequence[tuple[CaptionSource, Photo | str]]], list[schema.Row]]:
    """The rows of the captions table for a batch of photos, by the models of the params, which are loaded.

    Raises:
        TamingError: there is no such device, or no such model.
    """
    from taming_core.weights.device import pick_device  # imports torch

    return partial(rows_of, models=load_models(objects, pick_device(device), p), p=p)


def load_models(objects: AnyPath | None, device: str, p: CaptionParams) -> Models:
    """Captioner, matcher, and what adds attributes to objects of the table, if the params ask for it.

    Raises:
        TamingError: there is no such model.
    """
    from taming_core.captions.captioner import load_captioner  # these two import torch and transformers
    from taming_core.captions.matcher import load_matcher

    match = load_matcher(p.matcher, device)
    finish = None if objects is None else load_finish(objects, device, match, p)
    if p.is_vlm:
        captioner = load_prompted(p, device)
        return Models(captioner, match, captioner.ask, finish)
    describe = load_captioner(p.captioner, device, num_beams=p.num_beams, max_new_tokens=p.max_new_tokens)
    return Models(describe, match, finish=finish)


def load_prompted(p: CaptionParams, device: str) -> PromptedCaptioner:
    """The captioner of `vlm:NAME`, `vlm:FOLDER` or `vlm:URL#MODEL`.

    Raises:
        TamingError: there is no such model, or it cannot be asked.
    """
    if p.server is not None:
        keys, kept = "caption.captioner or caption.vlm", "what is captioned"
        return PromptedCaptioner(ChatServer(*p.server, p.vlm_params, p.max_new_tokens, keys, kept), p.vlm_params)
    from taming_core.vlm.chat_model import load_chat_model  # imports torch and transformers

    spec, beams = p.captioner.removeprefix(VLM), p.num_beams
    chat = load_chat_model(spec, device, "caption.captioner", num_beams=beams, max_new_tokens=p.max_new_tokens)
    return PromptedCaptioner(chat, p.vlm_params)
