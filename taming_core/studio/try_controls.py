"""What the tab Try asks for: the photos' arrangement, prompts, guidance and the rarer settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from taming_core.language.placeholder import OBJECT
from taming_core.params.load import load_params
from taming_core.params.sections import Sampling

if TYPE_CHECKING:
    from taming_core.studio.drawing import Model, Wanted

PROMPT = f"a photo of a {OBJECT} on the beach"
ARRANGEMENTS = {
    "the same object": "one object",
    "an object each, an image of each": "an image each",
    "an object each, all in one image": "one image",
}
# Insert at the cursor, and leave it behind what was inserted.
INSERT = """(text) => {
  const area = document.querySelector("#prompts textarea"), [start, end] = [area.selectionStart, area.selectionEnd];
  const before = text.slice(0, start), gap = before && !/\\s$/.test(before) ? " " : "";
  const inserted = before + gap + "%s";
  requestAnimationFrame(() => { area.focus(); area.setSelectionRange(inserted.length, inserted.length); });
  return inserted + text.slice(end);
}"""
SKIP: Any = gr.skip()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # leaves a value
on: Any = gr.on  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # partly untyped
# gradio drops an event that comes while the answer to the one before it is on its way, unless it is told otherwise.
EVERY: dict[str, Any] = {"trigger_mode": "multiple"}
LAST: dict[str, Any] = {"trigger_mode": "always_last"}  # with the values of then, but not with the event's own data


class Controls(NamedTuple):
    """The components that say what to draw, in the order of `wanted`."""

    cutouts: Any
    masks: Any
    arrangement: Any
    prompts: Any
    negative_prompt: Any
    seed: Any
    images: Any
    guidance_object: Any
    guidance_text: Any
    guidance_embedded: Any
    object_scale: Any
    scheduler: Any
    steps: Any
    width: Any
    height: Any
    encoder: Any
    base: Any
    device: Any
    precision: Any
    offload: Any


def params_of(project: Path) -> Path | None:
    """The params file of a project; None for that of the package."""
    path = project / "params.yaml"
    return path if path.is_file() else None


def build_prompts(arrangement: Any) -> Any:
    """The field for prompts, with chips below it that insert `<object>`."""
    prompts = gr.Textbox(
        PROMPT, label="Prompts, one a line", lines=2, max_lines=8, elem_id="prompts", info="Shift+Enter draws them."
    )
    with gr.Row(elem_classes="chips"):
        for number, text in enumerate((OBJECT, "<object:1>", "<object:2>")):
            chip = gr.Button(text, size="sm", min_width=60, visible=number == 0, elem_classes="chip")
            chip.click(None, prompts, prompts, js=INSERT % text)
            if number:  # two objects in one image
                arrangement.change(for_one_image, arrangement, chip)
    return prompts


def build_controls(
    project: Path, sampling: Sampling, cutouts: Any, masks: Any, arrangement: Any, prompts: Any
) -> Controls:
    """All that says what to draw; the rarer settings are folded."""
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=90)
        images = gr.Number(1, label="Images of each", precision=0, minimum=1, maximum=64, min_width=90)
    guidance = [
        gr.Slider(0, 15, value=value, step=0.1, label=label, elem_id=name)
        for name, label, value in (
            ("guidance-object", "Object guidance", sampling.guidance_object),
            ("guidance-text", "Text guidance", sampling.guidance_text),
        )
    ]
    with gr.Accordion("More settings", open=False):
        encoder = gr.Dropdown(
            encoders(project), value=encoders(project)[-1], allow_custom_value=True, label="Encoder", elem_id="encoder",
            info="mini, or a folder that `taming train` wrote.",
        )  # fmt: skip
        on(None, lambda: gr.Dropdown(choices=encoders(project)), None, encoder, queue=False)  # when a page is opened
        negative = gr.Textbox("", label="Negative prompt")
        scheduler = gr.Dropdown(
            scheduler_names(), value=sampling.scheduler, allow_custom_value=True, label="Scheduler", elem_id="scheduler"
        )
        steps = gr.Slider(1, 100, value=sampling.steps, step=1, label="Steps", elem_id="steps")
        scale = gr.Slider(
            0, 2, value=1, step=0.05, label="Object scale", info="For encoders that add attention of their own."
        )
        with gr.Row():
            width, height = (
                gr.Number(None, label=side, precision=0, minimum=1, min_width=90, placeholder="the model's own")
                for side in ("Width", "Height")
            )
        embedded = gr.Number(
            sampling.guidance_embedded, label="Embedded guidance", minimum=0.1, placeholder="as FLUX.1-dev reads it"
        )
        base = gr.Textbox("", label="Base", placeholder="as the encoder names it")
        with gr.Row():
            device = gr.Textbox("auto", label="Device", min_width=90, info="auto, cpu, cuda, cuda:1 or mps")
            precision = gr.Dropdown(["fp32", "bf16", "fp16"], value="fp32", label="Precision", min_width=90)
        offload = gr.Checkbox(False, label="Offload to CPU memory")
    return Controls(
        cutouts, masks, arrangement, prompts, negative, seed, images, guidance[0], guidance[1], embedded, scale,
        scheduler, steps, width, height, encoder, base, device, precision, offload,
    )  # fmt: skip


def for_one_image(arrangement: str) -> gr.Button:
    """A chip that is shown where objects of one image are told apart."""
    return gr.Button(visible=arrangement == "one image")


def encoders(project: Path) -> list[str]:
    """mini and the encoder folders of a project; the last is the one that `taming generate` takes by itself."""
    found = [
        path.parent
        for pattern in ("out/*", "out/*/*", "data/*")
        for path in project.glob(f"{pattern}/model_index.json")
    ]
    return [
        "mini",
        *sorted((path.relative_to(project).as_posix() for path in found), key=lambda n: (n == "data/encoder", n)),
    ]


def scheduler_names() -> list[str]:
    """The schedulers that diffusers has."""
    from taming_core.params.arguments import schedulers

    return sorted(name for name in schedulers() if not name.startswith(("Flax", "BaseScheduler")))


def wanted(c: Controls) -> "Wanted":
    """What the values of the controls ask for; raises TamingError if a number is out of its range."""
    from taming_core import generation
    from taming_core.images.requests import DrawSettings
    from taming_core.studio.cutouts import references
    from taming_core.studio.drawing import Wanted

    sampling = generation.override_sampling(
        load_params(None).generate.sampling, guidance_object=c.guidance_object, guidance_text=c.guidance_text,
        guidance_embedded=c.guidance_embedded, steps=int(c.steps), scheduler=c.scheduler,
    )  # fmt: skip
    size = generation.requested_size(*(side and int(side) for side in (c.width, c.height)))
    settings = DrawSettings(sampling, c.negative_prompt, c.object_scale, size)
    prompts = tuple(line.strip() for line in c.prompts.splitlines() if line.strip())
    return Wanted(
        tuple(references(c.cutouts, c.masks)), c.arrangement, prompts, int(c.seed or 0), int(c.images or 1),
        model_of(c.encoder, c.base, c.device, c.precision, c.offload), settings,
    )  # fmt: skip


def model_of(encoder: str, base: str, device: str, precision: str = "fp32", offload: bool = False) -> "Model":
    """The encoder that the controls name."""
    from taming_core.studio.drawing import Model

    return Model(encoder, base.strip() or None, device, precision, offload)
