"""The folder that training leaves: a diffusers pipeline in fp16, with a model card and an account of its making."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from taming_core.figures.curves import curves
from taming_core.files import replacing_folder, write_json, write_text
from taming_core.images.families import TamingPipeline
from taming_core.model import lora
from taming_core.model.subject_model import subject_model
from taming_core.params.arguments import require_encoder_out
from taming_core.params.load import RENAMED_KEYS
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows
from taming_core.training import checkpoint, loop
from taming_core.training.ema import ema_weights
from taming_core.training.metrics_log import METRICS, last_metrics, without_speed
from taming_core.training.start import Training, starting_pipeline

TRAINING, VERSION = "training.json", 2  # the version is raised whenever a key changes

MODEL_CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
tags: [subject-driven-generation, personalization, taming-encoder]
---
# A Taming Encoder

Draws a thing that it never saw before, from one photo of it, in the scene that a prompt asks for. One forward pass
customizes; nothing is tuned per thing.

```
taming generate --encoder {name} --object photo.jpg --prompt "a photo of a <object> on the beach" --out out/
```
```python
from PIL import Image
from taming_core import TamingPipeline

pipeline = TamingPipeline.from_pretrained("{name}")
subject = Image.open("cutout.png")  # the thing, its background transparent
pipeline("a photo of a <object> on the beach", subject=subject).images[0].save("image.png")
```

| made by | |
|---|---|
| starts from | {start} |
| injection | {injection}, {tokens} tokens a thing |
| tuned | {tune} |
| rows | {objects} with an object, {regularization} regularization |
| steps x rows | {steps} x {batch_size} |
| last loss | {loss:.4f} |

Weights are stored in half precision. `training.json` holds every setting, `metrics.jsonl` every step, `losses.png`
shows them, and `validation/` holds pictures drawn on the way. Method: Jia et al., "Taming Encoder for Zero Fine-tuning
Image Customization with Text-to-Image Diffusion Models", arXiv 2304.02642. The licence is that of the model it starts
from and of the photos it was trained on.
"""


def write(training: Training, validation: Rows, folder: Path, p: TrainParams, out: Path) -> str:
    """Write the trained encoder to `out`, remove the saved states of its run, and return what to print.

    Every process of the run must call it; the main one writes. Weights are the EMA where one is kept.

    Args:
        training: at its last step.
        validation: rows of the validation split.
        folder: of the rows.
        p: the params.
        out: replaced as a whole.
    """
    run = training.run
    with ema_weights(run.ema, run.weights):
        results = loop.trained_weights(run)
    if not run.processes.is_main:
        return ""
    pipeline = starting_pipeline(p)  # in float32, whatever precision the run had its frozen weights in
    pipeline.register_modules(scheduler=training.pipeline.scheduler)
    loop.load_results(results, subject_model(pipeline.components), p)
    account = describe_run(training, validation, checkpoint.rows_state(folder))
    write_folder(pipeline, account, p, training.state, out)
    checkpoint.remove_states(training.state)
    return summary(account, out)


def write_folder(pipeline: TamingPipeline, account: Mapping[str, Any], p: TrainParams, state: Path, out: Path) -> None:
    """Put the pipeline in fp16, its card, and the metrics and pictures of its run in the place of `out`.

    A LoRA is fused into the weights and also saved by itself. No file holds a path of this machine.
    """
    require_encoder_out(out)
    with replacing_folder(out) as part:
        if lora.has_lora(pipeline.denoiser):
            lora.save_and_fuse(pipeline, part)
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                torch.nn.Module.half(component)  # diffusers' own `half` warns that it keeps no module in float32
        pipeline.save_pretrained(part)
        for path in part.rglob("*.json"):
            strip_name(path)
        settings = portable(p)
        write_json(part / TRAINING, {"version": VERSION, "params": settings, **account})
        write_text(part / "README.md", card(pipeline, settings, account, out.name))
        copy_records(state, part)


def describe_run(training: Training, validation: Rows, rows_state: str) -> dict[str, Any]:
    """What the encoder was made of, how many weights were trained, and its last losses."""
    trained = {name: sum(w.numel() for w in weights.values()) for name, weights in training.run.trained.items()}
    return {
        "run": training.state.name,
        "trained": trained,
        "rows": rows_state,
        "object_rows": len(training.rows.objects),
        "regularization_rows": len(training.rows.regularization),
        "pictures_of": "validation" if len(validation.objects) else "train",
        "last": last_metrics(training.state),
    }


def summary(account: Mapping[str, Any], out: Path) -> str:
    """What there is to say after training."""
    last = account["last"]
    lines = [
        f"{out}: {last['step']} steps, loss {last['loss']:.4f}",
        f"{account['object_rows']:6d} rows with an object",
        f"{account['regularization_rows']:6d} regularization rows",
    ]
    if account["pictures_of"] == "train":
        lines.append("The validation pictures show training objects, for the validation split has none.")
    return "\n".join(lines)


def copy_records(runs: Path, part: Path) -> None:
    """Copy the metrics and the validation grids of a run; not the speeds, so that the folder is the same every time."""
    lines = [without_speed(line) for line in (runs / METRICS).read_text().splitlines()]
    (part / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves(lines).savefig(part / "losses.png", dpi=130)
    for path in runs.glob("grid-*.png"):
        (part / "validation").mkdir(exist_ok=True)
        shutil.copy(path, part / "validation")


def strip_name(path: Path) -> None:
    """Remove `_name_or_path`, where diffusers writes down the folder that a part was loaded from."""
    found = json.loads(path.read_text())
    if isinstance(found, dict) and "_name_or_path" in found:
        path.write_text(json.dumps({k: v for k, v in found.items() if k != "_name_or_path"}, indent=2) + "\n")


def portable(p: TrainParams) -> dict[str, Any]:
    """The params, with the last part only of the paths of folders that only this machine has."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return clean(p.model_dump())


def card(pipeline: TamingPipeline, settings: Mapping[str, Any], account: Mapping[str, Any], name: str) -> str:
    """The model card."""
    encoder = pipeline.components["object_encoder"].config
    facts = {"start": settings["start"] or settings["base"], "injection": encoder["injection"]}
    used = {k: settings[k] for k in ("tune", "steps", "batch_size")}
    rows = {"objects": account["object_rows"], "regularization": account["regularization_rows"]}
    return MODEL_CARD.format(**facts, **used, **rows, tokens=encoder["tokens"], loss=account["last"]["loss"], name=name)


def read_training(folder: Path) -> dict[str, Any]:
    """What training.json says, with today's keys; empty where the folder has none, as an export to other programs."""
    path = folder / TRAINING
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "general_rows" in found:  # written before 0.1.0
        found["regularization_rows"] = found.pop("general_rows")
        params = found["params"]
        for old, new in RENAMED_KEYS.items():
            params[new.removeprefix("train.")] = params.pop(old.removeprefix("train."), None)
    return found
