"""What the tab Try does: photos to subjects, prompts to images in out/studio; the calls of `taming generate`."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from taming_core import generation
from taming_core.errors import TamingError
from taming_core.files import replacing_folder
from taming_core.fingerprints import digest, folder_fingerprint, versions
from taming_core.images import checks, records
from taming_core.images.draw import draw_recorded
from taming_core.images.families import TamingPipeline, load_pipeline
from taming_core.images.pipeline import StepEnd
from taming_core.images.requests import DrawSettings
from taming_core.locks import exclusive
from taming_core.objects.subjects import Finder, NoObjectError, load_finder, require_finder, require_photos, subjects_of
from taming_core.params import arguments
from taming_core.params.load import load_params
from taming_core.params.sections import DetectParams
from taming_core.photos.files import folder_state
from taming_core.studio.places import IMAGES, OBJECTS
from taming_core.weights.device import pick_device
from taming_core.weights.mini import encoder_folder

Arrangement = Literal["one object", "an image each", "one image"]  # what several photos show


@dataclass(frozen=True)
class Reference:
    """A photo of an object, and the file of its mask if it was corrected."""

    photo: Path
    mask: Path | None = None

    @property
    def masks(self) -> list[Path]:
        """Its mask files, none or one."""
        return [] if self.mask is None else [self.mask]


@dataclass(frozen=True)
class Model:
    """Which encoder draws, and where; as the options of `taming generate`."""

    encoder: str
    base: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    offload: bool = False


@dataclass(frozen=True)
class Wanted:
    """The images of one click."""

    references: tuple[Reference, ...]
    arrangement: Arrangement
    prompts: tuple[str, ...]
    seed: int
    images: int  # of each object and prompt
    model: Model
    settings: DrawSettings


@dataclass(frozen=True)
class Loaded:
    """An encoder in memory, and the embeddings of the objects that it has seen, by their content."""

    pipeline: TamingPipeline
    fingerprint: str
    embeds: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Drawn:
    """An image in `IMAGES`, and its place among those of the click."""

    file: str
    number: int  # from 1
    count: int


def files_of(model: Model) -> tuple[Path, str]:
    """The folder of an encoder, and a text that changes with its files."""
    folder = encoder_folder(model.encoder)
    return folder, folder_state(folder)


@lru_cache(1)
def load(model: Model, folder: Path, _state: str) -> Loaded:
    """Load an encoder, or return it if it is the last one and its files are the same; see `files_of`."""
    pipeline = load_pipeline(str(folder), pick_device(model.device), model.precision, model.offload, model.base)
    return Loaded(pipeline, folder_fingerprint(folder))


@lru_cache(1)
def finder_of(detect: str, device: str) -> Finder:
    """The detector and the segmenter of params (JSON), loaded once."""
    p = DetectParams.model_validate_json(detect)
    require_finder(p)
    return load_finder(p, device)


def subject_image(reference: Reference, background: str, device: str = "auto") -> Image.Image:
    """The subject of a photo, as the encoder sees it; loads the detector only if the photo needs it.

    Raises:
        TamingError: the photo cannot be read, or shows no object.
    """
    p = load_params(None)

    def find() -> Finder:
        return finder_of(p.detect.model_dump_json(), pick_device(device))

    return subjects_of([[reference.photo]], reference.masks, find, p.materialize, background)[0][0]


def subjects_or_reasons(references: Sequence[Reference], model: Model) -> list[Image.Image | str]:
    """The subject of each photo, or why there is none."""
    background = background_of(model)
    return [subject_or_reason(reference, background, model.device) for reference in references]


def subject_or_reason(reference: Reference, background: str, device: str) -> Image.Image | str:
    """The subject of a photo, or why there is none."""
    try:
        return subject_image(reference, background, device)
    except NoObjectError:
        return not_found(reference.photo)
    except TamingError as error:
        return str(error).replace(str(reference.photo), reference.photo.name)


def not_found(photo: Path) -> str:
    """What to do about a photo in which no object is found."""
    return f"No object was found in {photo.name}. Click it below the field for photos, and mark the object."


def background_of(model: Model) -> str:
    """What stands behind a subject for this encoder: `removed`, or `kept`."""
    configs = checks.encoder_configs(encoder_folder(model.encoder), model.base)
    return configs.of("object_encoder").get("background", "removed")


def grouped(references: Sequence[Reference], arrangement: Arrangement) -> list[tuple[Path, list[Reference]]]:
    """Each object by its photo, or by a folder of its photos, with these photos.

    Raises:
        TamingError: there is no photo.
    """
    if not references:
        raise TamingError("There is no photo. Drop one, or several, into the field for photos.")
    if arrangement == "one object" and len(references) > 1:
        return [(photo_folder(references), list(references))]
    return [(r.photo, [r]) for r in references]


def photo_folder(references: Sequence[Reference]) -> Path:
    """A folder with copies of the photos of one object, so that `taming generate --object` can take it too.

    Masks are in a folder `masks`, as beside all photos.
    """
    parts = [[r.photo.read_bytes(), *(b"mask" + mask.read_bytes() for mask in r.masks)] for r in references]
    folder = OBJECTS / digest(chain.from_iterable(parts)) / references[0].photo.stem
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as part:
            for number, r in enumerate(references):
                name = Path(f"{number:03d}-{r.photo.name}")
                shutil.copyfile(r.photo, part / name)
                for mask in r.masks:
                    (part / "masks").mkdir(exist_ok=True)
                    shutil.copyfile(mask, part / "masks" / name.with_suffix(".png"))
    return folder


def draw(wanted: Wanted, on_step: Callable[[int], bool]) -> Iterator[Drawn]:
    """Draw the images of a click into `IMAGES`.

    Args:
        wanted: the images.
        on_step: called with the completed sampling steps of a batch; returns whether to stop.

    Raises:
        TamingError: as `taming generate`.
    """
    model, settings = wanted.model, wanted.settings
    p = load_params(None)
    groups = grouped(wanted.references, wanted.arrangement)
    together = wanted.arrangement == "one image" and len(groups) > 1
    prompts = generation.require_prompts(wanted.prompts)
    requested = generation.requested_images(
        [path for path, _ in groups], prompts, wanted.seed, wanted.images, together
    )  # fmt: skip
    records.require_out(IMAGES, [])
    arguments.require_scheduler(settings.sampling.scheduler)
    arguments.require_precision(model.precision, model.device, model.offload)
    arguments.require_models(p.detect)
    configs = checks.encoder_configs(encoder_folder(model.encoder), model.base)
    checks.require_drawable(configs, settings, len(requested[0].request.objects))
    for reference in chain.from_iterable(of for _, of in groups):
        require_photos([reference.photo], reference.masks)
    checks.require_read_by(configs, generation.unique(w.request.prompt for w in requested))

    loaded = load(model, *files_of(model))
    pipeline = loaded.pipeline
    requested = generation.with_encoder_captions(requested, pipeline.object_encoder.captions)
    background = pipeline.object_encoder.config["background"]
    subjects = [[subject_image(r, background, model.device) for r in of] for _, of in groups]
    embeds = [embeddings(loaded, of_object) for of_object in subjects]
    made_with = {"folder": model.encoder, "fingerprint": loaded.fingerprint}
    entries = generation.records(requested, subjects, settings, made_with, versions(), model.precision)
    with exclusive(IMAGES, nested=False):
        files = records.file_names([w.readable_name for w in requested], entries, IMAGES)
        requests = [w.request for w in requested]
        drawn = draw_recorded(pipeline, requests, files, entries, embeds, settings, IMAGES, step_end(on_step))
        for number, (file, _) in enumerate(drawn, 1):
            yield Drawn(file, number, len(files))


def embeddings(loaded: Loaded, subjects: Sequence[Image.Image]) -> Tensor:
    """The object embeddings (tokens, D) of the photos of one object; encoded once, whatever their files are called."""
    key = digest(subject.tobytes() for subject in subjects)
    if key not in loaded.embeds:
        loaded.embeds[key] = loaded.pipeline.encode_objects([list(subjects)])[0]
    return loaded.embeds[key]


def step_end(on_step: Callable[[int], bool]) -> StepEnd:
    """The callback of diffusers: stops the sampling if `on_step`, called with the completed steps, says so."""

    def after(pipeline: Any, step: int, _: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        pipeline.interrupt = on_step(step + 1)
        return tensors

    return after
