"""How vision-language models are asked: what the captioner and the judge have in common, and the judge."""

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from taming_core.params.section import Section

CONNECTION = ("api_key_env", "timeout", "retries")  # keys of a server


class ChatParams(Section):
    """How a vision-language model is asked; each key has a default."""

    max_side: PositiveInt = 1024  # pixels of the longer side of a picture that the model gets
    # Of a server only:
    api_key_env: str | None = None  # the environment variable with its API key
    timeout: PositiveFloat = 120.0  # seconds without an answer
    retries: NonNegativeInt = 5  # of a request that fails, after longer and longer waits


class VlmJudgeParams(ChatParams):
    """The vision-language model that judges images, and what it is asked; all keys but `model` have a default.

    The aspects and the scale of the questions are those of Peng et al., "DreamBench++", arXiv 2406.16855, section 3.
    """

    model: str  # a folder, a model name, or URL#MODEL
    images: PositiveInt | None = None  # of each condition that it is asked about; null for all
    # Of the object, with two pictures: the photo that the encoder saw, and the image. {class} is the object's class.
    cp_prompt: str = (
        "Two pictures follow each other: first a photo of a {class}, then an image that a program made and that should "
        "show the very same one. Judge how well its identity was kept, and nothing else: pose, size, background, light "
        "and style of drawing may differ. Compare four things: the shape, with its parts and proportions; the colors "
        "and where they are; the texture, with patterns, prints and small details; and of people, animals and figures "
        "the face.\n"
        "Give one whole number. 0: something else entirely. 1: the same kind of thing, but clearly another one. 2: "
        "partly alike, with differences that one sees at once. 3: the same one at first sight, with small differences. "
        "4: no difference in identity can be found.\n"
        "Write one short sentence on what differs most, and then a last line in exactly this form:\nScore: NUMBER"
    )
    # Of the prompt, with one picture. {prompt} is the prompt with the object's class in the place of <object>.
    pf_prompt: str = (
        "A program was asked for this image: “{prompt}”. Judge how well the image fits these words, and not how pretty "
        "it is, or which one of its kind an object is. Consider four things: whether it shows what the words are "
        "about; whether the details that they name are right; whether anything that they name is missing; and whether "
        "place, action and style are those that they describe.\n"
        "Give one whole number. 0: nothing fits. 1: the topic fits, most of the rest does not. 2: about half fits; "
        "something important is missing or wrong. 3: nearly everything fits; a detail is missing or wrong. 4: "
        "everything fits.\n"
        "Write one short sentence on what fits least, and then a last line in exactly this form:\nScore: NUMBER"
    )
    max_side: PositiveInt = 512
    max_new_tokens: PositiveInt = 256  # of an answer
    at_once: PositiveInt = 16  # requests to a server

    @property
    def server(self) -> tuple[str, str] | None:
        """The URL and the model's name of a judge behind a server; None for any other."""
        return server_of(self.model)

    @model_validator(mode="after")
    def _names_a_model(self) -> "VlmJudgeParams":
        if self.model in ("", "mini") or self.model.startswith("vlm:"):
            raise ValueError("evaluate.vlm.model must be a folder, a model name or URL#MODEL, without vlm:; mini has "
                             "none")  # fmt: skip
        if self.server is not None and not self.server[1]:
            raise ValueError("evaluate.vlm.model must name the server's model, as in http://localhost:8000/v1#NAME")
        ignored = [key for key in (*CONNECTION, "at_once") if key in self.model_fields_set]
        if ignored and self.server is None:
            raise ValueError(f"evaluate.vlm.{ignored[0]} must be left out unless evaluate.vlm.model is URL#MODEL")
        if "{prompt}" not in self.pf_prompt:
            raise ValueError("evaluate.vlm.pf_prompt must contain {prompt}, which stands for the prompt of the image")
        return self


def server_of(spec: str) -> tuple[str, str] | None:
    """The URL and the model's name of URL#MODEL; None for any other name.

    >>> server_of("http://localhost:8000/v1/#qwen"), server_of("Qwen/Qwen2.5-VL-7B-Instruct")
    (('http://localhost:8000/v1', 'qwen'), None)
    """
    url, _, model = spec.partition("#")
    return (url.rstrip("/"), model) if url.startswith(("http://", "https://")) else None
