"""The models that captions are made with, as the params name them."""

from pathlib import Path

from taming_core.captions.attribute_words import load_finish
from taming_core.captions.captioner import load_captioner
from taming_core.captions.drafts import Models
from taming_core.captions.matcher import load_matcher
from taming_core.captions.prompted import PromptedCaptioner
from taming_core.params.caption import VLM, CaptionParams
from taming_core.vlm.chat_model import load_chat_model
from taming_core.vlm.chat_server import ChatServer


def load_models(objects: Path | None, device: str, p: CaptionParams) -> Models:
    """Captioner, matcher, and what adds attributes to objects of the table, if the params ask for it.

    Raises:
        TamingError: there is no such model.
    """
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
    spec, beams = p.captioner.removeprefix(VLM), p.num_beams
    chat = load_chat_model(spec, device, "caption.captioner", num_beams=beams, max_new_tokens=p.max_new_tokens)
    return PromptedCaptioner(chat, p.vlm_params)
