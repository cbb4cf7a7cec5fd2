"""The output folder of a training: a diffusers pipeline in fp16, with a model card and a record of the training.

It holds what was trained, and names the base that the other components come from (`taming_core/bases/record.py`); or it
is standalone, with all components.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from taming_core.bases.record import MINI, BaseRecord
from taming_core.figures.curves import curves
from taming_core.files import read_json, replacing_folder, write_json, write_text
from taming_core.images.families import TamingPipeline
from taming_core.model import lora
from taming_core.model.subject_model import subject_model
from taming_core.params.arguments import require_encoder_out
from taming_core.params.load import RENAMED_KEYS, RENAMED_VALUES
from taming_core.params.train import TrainParams
from taming_core.storage.filesystem import is_file
from taming_core.storage.paths import AnyPath
from taming_core.tables.row_files import rows_state
from taming_core.tables.rows import Rows
from taming_core.training import checkpoint, loop
from taming_core.training.ema import ema_weights
from taming_core.training.metrics_log import METRICS, drop_speed, last_metrics
from taming_core.training.start import Training, starting_pipeline
from taming_core.training.trained_weights import Weights, save_trained
from taming_core.weights.precision import convert

TRAINING, VERSION = "training.json", 3  # the version is raised whenever a key changes

MODEL_CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
{base_model}tags: [subject-driven-generation, personalization, taming-encoder]
---
# A Taming Encoder

Generates images of an object that it was not trained on, from one photo and a prompt. The object is embedded in one
forward pass; no weights are tuned per object.

```
taming generate --encoder {name} --object photo.jpg --prompt "a photo of a <object> on the beach" --out out/
```
```python
from PIL import Image
from taming_core import TamingPipeline

pipeline = TamingPipeline.from_pretrained("{name}")
subject = Image.open("cutout.png")  # the object on a transparent background
pipeline("a photo of a <object> on the beach", subject=subject).images[0].save("image.png")
```

| training | |
|---|---|
| starts from | {start} |
| injection | {injection}, {tokens} tokens per object |
| tuned | {tune} |
| rows | {objects} with an object, {regularization} regularization |
| steps x rows | {steps} x {batch_size} |
| last loss | {loss:.4f} |

{base}Weights are stored in half precision. `training.json` holds every setting, `metrics.jsonl` the losses of every
step, `losses.png` plots them, and `validation/` holds validation grids. Method: Jia et al., "Taming Encoder for Zero
Fine-tuning Image Customization with Text-to-Image Diffusion Models", arXiv 2304.02642. The licence is that of the model
it starts from and of the photos it was trained on.
"""


BASE_NOTE = """This folder holds only what was trained. The other components are those of the base `{base}`, which is
found by this name, or by `--base` and `TamingPipeline.from_pretrained(..., base=...)`; its weights are checked.

"""


def write(
    training: Training, validation: Rows, folder: AnyPath, p: TrainParams, out: AnyPath, standalone: bool = False
) -> str:
    """Write the trained encoder to `out`, remove the saved states of its run, and return what to print.

    Every process of the run must call it; the main one writes. Weights are the EMA where one is kept.

    Args:
        training: at its last step.
        validation: rows of the validation split.
        folder: of the rows.
        p: the params.
        out: replaced as a whole.
        standalone: whether to write all components; always so if they are from `mini`, which changes with releases of
            this package, or from a folder with all components.
    """
    require_encoder_out(out)
    run = training.run
    with ema_weights(run.ema, run.weights):
        results = loop.trained_weights(run)
    if not run.processes.is_main:
        return ""
    account = describe_run(training, validation, rows_state(folder))
    record = training.pipeline.base
    if standalone or record is None or record.name == MINI:
        write_folder(whole_pipeline(training, results, p), account, p, training.state, out)
    else:
        with replacing_folder(out) as part:
            save_trained(training, record, results, p, part)
            write_records(training.pipeline, account, p, training.state, part, out.name, record)
    checkpoint.remove_states(training.state)
    return summary(account, out)


def whole_pipeline(training: Training, results: Weights, p: TrainParams) -> TamingPipeline:
    """The trained pipeline in float32, whatever precision the run had its frozen weights in."""
    pipeline = starting_pipeline(p, base=training.base)
    untyped: Any = pipeline
    untyped.register_modules(scheduler=training.pipeline.scheduler)
    loop.load_results(results, subject_model(pipeline.components), p)
    return pipeline


def write_folder(
    pipeline: TamingPipeline, account: Mapping[str, Any], p: TrainParams, state: Path, out: AnyPath
) -> None:
    """Replace `out` by the whole pipeline in fp16, and the records of its run.

    A LoRA is fused into the weights and also saved separately.
    """
    require_encoder_out(out)
    untyped: Any = pipeline
    with replacing_folder(out) as part:
        if lora.has_lora(pipeline.denoiser):
            lora.save_and_fuse(pipeline, part)
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                convert(component, torch.float16)
        untyped.save_pretrained(part)
        write_records(pipeline, account, p, state, part, out.name, None)


def write_records(
    pipeline: TamingPipeline, account: Mapping[str, Any], p: TrainParams, state: Path, part: Path, name: str,
    record: BaseRecord | None,
) -> None:  # fmt: skip
    """Write the model card, training.json, metrics and validation grids of a run; no file contains a local path."""
    for path in part.rglob("*.json"):
        strip_name(path)
    settings = portable_params(p)
    write_json(part / TRAINING, {"version": VERSION, "params": settings, **account})
    write_text(part / "README.md", card(pipeline, settings, account, name, record))
    copy_records(state, part)


def describe_run(training: Training, validation: Rows, state: str) -> dict[str, Any]:
    """The record of a training: rows, the number of trained weights per network, and the last losses."""
    trained = {name: sum(w.numel() for w in weights.values()) for name, weights in training.run.trained.items()}
    return {
        "run": training.state.name,
        "trained": trained,
        "rows": state,
        "object_rows": len(training.rows.objects),
        "regularization_rows": len(training.rows.regularization),
        "pictures_of": "validation" if len(validation.objects) else "train",
        "last": last_metrics(training.state),
        "networks": training.networks,
    }


def summary(account: Mapping[str, Any], out: AnyPath) -> str:
    """The lines to print after training."""
    last = account["last"]
    lines = [
        f"{out}: {last['step']} steps, loss {last['loss']:.4f}",
        f"{account['object_rows']:6d} rows with an object",
        f"{account['regularization_rows']:6d} regularization rows",
    ]
    if account["pictures_of"] == "train":
        lines.append("The validation grids show training objects, since the validation split has none.")
    return "\n".join(lines)


def copy_records(runs: Path, part: Path) -> None:
    """Copy the metrics and validation grids of a run, without speeds, so that the folder is reproducible."""
    lines = [drop_speed(line) for line in (runs / METRICS).read_text(encoding="utf-8").splitlines()]
    write_text(part / METRICS, "".join(json.dumps(line) + "\n" for line in lines))
    figure: Any = curves(lines)
    figure.savefig(part / "losses.png", dpi=130)
    for path in runs.glob("grid-*.png"):
        (part / "validation").mkdir(exist_ok=True)
        shutil.copy(path, part / "validation")


def strip_name(path: Path) -> None:
    """Remove `_name_or_path` from a JSON file, where diffusers stores the folder that a component was loaded from."""
    config: dict[str, Any] | list[Any] = read_json(path)
    if isinstance(config, dict) and "_name_or_path" in config:
        write_json(path, {k: v for k, v in config.items() if k != "_name_or_path"})


def portable_params(p: TrainParams) -> dict[str, Any]:
    """The params, with absolute paths reduced to their last component."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in cast("dict[str, Any]", value).items()}
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return clean(p.model_dump())


def card(
    pipeline: TamingPipeline,
    settings: Mapping[str, Any],
    account: Mapping[str, Any],
    name: str,
    record: BaseRecord | None,
) -> str:
    """The model card."""
    note = "" if record is None else BASE_NOTE.format(base=record.name)
    base_model = "" if record is None or record.revision is None else f"base_model: {record.name}\n"
    encoder = pipeline.components["object_encoder"].config
    facts = {"start": settings["start"] or settings["base"], "injection": encoder["injection"]}
    used = {k: settings[k] for k in ("tune", "steps", "batch_size")}
    rows = {"objects": account["object_rows"], "regularization": account["regularization_rows"]}
    return MODEL_CARD.format(**facts, **used, **rows, tokens=encoder["tokens"], loss=account["last"]["loss"], name=name,
                             base=note, base_model=base_model)  # fmt: skip


def read_training(folder: AnyPath) -> dict[str, Any]:
    """The content of training.json, with current keys; empty if there is no such file, as in an export."""
    path = folder / TRAINING
    if not is_file(path):
        return {}
    record: dict[str, Any] = read_json(path)
    if "version" not in record:  # written before 0.1.0
        record["regularization_rows"] = record.pop("general_rows")
        params = record["params"]
        for old, new in RENAMED_KEYS.items():
            params[new.removeprefix("train.")] = params.pop(old.removeprefix("train."), None)
        for (key, old), new in RENAMED_VALUES.items():
            name = key.removeprefix("train.")
            params[name] = new if params.get(name) == old else params.get(name)
    return record
