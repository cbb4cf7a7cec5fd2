"""The section `caption` of params.yaml."""

from typing import Literal

from pydantic import PositiveInt, model_validator

from taming_core.params.sections import AttributeParams, Fraction, Section
from taming_core.params.vlm import CONNECTION, ChatParams, server_of

VLM = "vlm:"  # begins the name of a captioner that is asked for captions


class VlmParams(ChatParams):
    """How a vision-language model is asked for captions; each key has a default."""

    # For an object of {class}, which the caption is about.
    prompt: str = (
        "Describe this photo in one sentence, as a caption that starts with the kind of picture it is. Write <object> "
        "instead of the {class}, exactly once, and say nothing about its looks; say what it does, where it is, what is "
        "around it, and how the light is."
    )
    # For a photo without an object; the start of the caption may follow.
    photo_prompt: str = "Describe this photo in one sentence, as a caption."

    @model_validator(mode="after")
    def _prompt_asks_for_the_object(self) -> "VlmParams":
        if "<object>" not in self.prompt:
            raise ValueError("caption.vlm.prompt must ask for <object>, which it does not contain")
        return self


class CaptionParams(Section):
    """objects -> captions."""

    captioner: str  # mini, a folder, or a model name; vlm:FOLDER, vlm:NAME or vlm:URL#MODEL is asked as `vlm` says
    matcher: str  # mini, a folder, or a name of a BLIP with an image-text matching head
    num_beams: PositiveInt  # of the captioner's beam search
    max_new_tokens: PositiveInt  # of a caption
    replace: Literal["noun", "phrase"]  # the noun alone, or the noun with its adjectives
    given: Literal["keep", "append", "replace"]  # a person's captions: alone, with a scene, or unused
    match_min: Fraction  # captioner's captions with a lower match score are not used; a row without another is dropped
    template: str  # the fallback where no noun is found; contains <object> once
    attributes: AttributeParams | None  # words that are added to captions of objects; null for none
    vlm: VlmParams | None  # of a captioner vlm:...; null for its defaults
    batch_size: PositiveInt  # photos that the models see at once
    shard_size: PositiveInt  # photos per crash-safe shard

    @property
    def is_vlm(self) -> bool:
        """Whether the captioner is a vision-language model that is asked for captions."""
        return self.captioner.startswith(VLM)

    @property
    def server(self) -> tuple[str, str] | None:
        """The URL and the model's name of a captioner behind a server; None for any other."""
        return server_of(self.captioner.removeprefix(VLM)) if self.is_vlm else None

    @property
    def vlm_params(self) -> VlmParams:
        """How the captioner vlm:... is asked."""
        return self.vlm or VlmParams()

    @property
    def of_captions(self) -> "CaptionParams":
        """The params with the defaults of all keys that change no caption, and those of `vlm` written out."""
        asked = self.vlm_params.model_dump(exclude=set(CONNECTION))
        return self.model_copy(update={"vlm": VlmParams(**asked) if self.is_vlm else None})

    @model_validator(mode="after")
    def _vlm_has_an_effect(self) -> "CaptionParams":
        if self.captioner in (VLM, f"{VLM}mini"):
            raise ValueError("caption.captioner must name a folder, a model or URL#MODEL after vlm:, and mini has none")
        if self.vlm is not None and not self.is_vlm:
            raise ValueError("caption.vlm must be null unless caption.captioner begins with vlm:")
        ignored = [key for key in CONNECTION if self.vlm and key in self.vlm.model_fields_set]
        if ignored and self.server is None:
            raise ValueError(f"caption.vlm.{ignored[0]} must be left out unless caption.captioner is vlm:URL#MODEL")
        if self.server is not None and not self.server[1]:
            raise ValueError("caption.captioner must name the server's model, as in vlm:http://localhost:8000/v1#NAME")
        if self.server is not None and self.num_beams > 1:
            raise ValueError("caption.num_beams must be 1 where caption.captioner is a server: it has no beam search")
        return self

    @model_validator(mode="after")
    def _template_holds_object(self) -> "CaptionParams":
        if self.template.count("<object>") != 1:
            raise ValueError("caption.template must contain <object> exactly once")
        return self
