"""The output folder of a training: a diffusers pipeline in fp16, with a model card and a record of the training.

It holds what was trained, and names the base that the other components come from (`taming_core/bases/record.py`); or it
is standalone, with all components.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # PathLike[Unknown]
from torch import Tensor
from transformers import PreTrainedModel

from taming_core.bases.family import tokenizer_of
from taming_core.bases.placeholder import placeholder_embedding
from taming_core.bases.record import EMBEDDINGS, MINI, BaseRecord, entry_of
from taming_core.figures.curves import curves
from taming_core.files import read_json, replacing_folder, write_json, write_text
from taming_core.images.families import TamingPipeline
from taming_core.model import lora
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.model.subject_model import subject_model
from taming_core.model.towers import load_tower
from taming_core.params.arguments import require_encoder_out
from taming_core.params.load import RENAMED_KEYS, RENAMED_VALUES
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows
from taming_core.training import checkpoint, loop
from taming_core.training.ema import ema_weights
from taming_core.training.metrics_log import METRICS, drop_speed, last_metrics
from taming_core.training.start import Training, starting_pipeline
from taming_core.weights.precision import convert

TRAINING, VERSION = "training.json", 2  # the version is raised whenever a key changes

Weights = Mapping[str, Mapping[str, Tensor]]  # trained ones, by network and name

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
    training: Training, validation: Rows, folder: Path, p: TrainParams, out: Path, standalone: bool = False
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
    account, record = describe_run(training, validation, checkpoint.rows_state(folder)), training.pipeline.base
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


def write_folder(pipeline: TamingPipeline, account: Mapping[str, Any], p: TrainParams, state: Path, out: Path) -> None:
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


def save_trained(training: Training, record: BaseRecord, results: Weights, p: TrainParams, part: Path) -> None:
    """Save in fp16 what was trained, now or before: the object encoder, LoRA, networks as a whole; and the scheduler.

    A network that comes from the base is not saved; of a text encoder only its embedding of `<object>`.
    """
    pipeline, components = cast(Any, training.pipeline), training.pipeline.components
    trained = {name: weights for name, weights in results.items() if name != "denoiser" and name != "object_encoder"}
    if p.tune == "whole":
        trained[pipeline.family.denoiser_name] = results["denoiser"]
    for name, weights in trained.items():
        save_network(with_weights(components[name], weights), part / name)
    networks = [name for name, component in components.items() if isinstance(component, torch.nn.Module)]
    left = BaseRecord(record.name, record.revision, {n: d for n, d in record.weights.items() if n not in trained})
    for name in networks:
        if name not in {*left.weights, *trained, "object_encoder"}:  # trained by the training that this one continues
            shutil.copytree(Path(pipeline.name_or_path) / name, part / name)
        if name.startswith("text_encoder") and name not in left.weights:
            components[tokenizer_of(name)].save_pretrained(part / tokenizer_of(name))
    save_network(trained_encoder(training, results["object_encoder"], p), part / "object_encoder")
    rows = {n: placeholder_embedding(components[tokenizer_of(n)], components[n]) for n in left.text_encoders}
    save_file({name: row.float().cpu().contiguous() for name, row in rows.items()}, part / EMBEDDINGS)
    if (layers := lora_of(training, results, p)) is not None:
        lora.save_lora(pipeline, {name: w.half() for name, w in layers.items()}, part / lora.FOLDER)
    pipeline.scheduler.save_pretrained(part / "scheduler")
    pipeline.save_config(part)
    index = read_json(part / "model_index.json")
    write_json(part / "model_index.json", index | entry_of(left))


def save_network(network: Any, folder: Path) -> None:
    """Save a network in fp16; it is converted in place."""
    convert(network, torch.float16)
    network.save_pretrained(folder)


def with_weights(network: Any, weights: Mapping[str, Tensor]) -> Any:
    """A network of the same config with these weights, which are all of its own; that one may be sharded."""
    with torch.device("meta"):
        if isinstance(network, PreTrainedModel):
            empty: Any = type(network)(network.config)
        else:
            empty = getattr(diffusers, network.config["_class_name"]).from_config(network.config)
    empty.load_state_dict(weights, strict=False, assign=True)  # tied weights have one name in `weights`
    if isinstance(network, PreTrainedModel):
        empty.tie_weights()
    return empty


def trained_encoder(training: Training, weights: Mapping[str, Tensor], p: TrainParams) -> ObjectEncoder:
    """The object encoder with its trained weights; the others as they were before the precision of the run."""
    encoder: Any = training.pipeline.object_encoder
    before = {name: value.float().cpu() for name, value in encoder.state_dict().items()}
    if p.precision != "fp32" and encoder.config["tower"] is not None:
        start = None if p.start is None else Path(training.pipeline.name_or_path) / "object_encoder"
        tower = load_tower(str(start) if start or p.encoder is None else p.encoder.tower)[0]
        before |= {f"vision.{name}": value for name, value in tower.state_dict().items()}
    whole = ObjectEncoder(**{key: value for key, value in encoder.config.items() if not key.startswith("_")})
    whole.load_state_dict({**before, **weights})
    return whole.eval()


def lora_of(training: Training, results: Weights, p: TrainParams) -> dict[str, Tensor] | None:
    """The LoRA between the saved denoiser and the trained one, together with that of an earlier training."""
    pipeline = training.pipeline
    earlier = Path(pipeline.name_or_path) / lora.FILE if pipeline.name_or_path else None
    if p.tune == "whole":
        return None
    name = pipeline.family.denoiser_name
    first = load_file(earlier) if earlier is not None and earlier.is_file() else None
    first = None if first is None else {n.removeprefix(f"{name}."): w.float() for n, w in first.items()}
    if p.lora is None:
        return first
    second = lora.lora_weights(pipeline.denoiser, results["denoiser"])
    return second if first is None else lora.stack(first, second)


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


def describe_run(training: Training, validation: Rows, rows_state: str) -> dict[str, Any]:
    """The record of a training: rows, the number of trained weights per network, and the last losses."""
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
    lines = [drop_speed(line) for line in (runs / METRICS).read_text().splitlines()]
    (part / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure: Any = curves(lines)
    figure.savefig(part / "losses.png", dpi=130)
    for path in runs.glob("grid-*.png"):
        (part / "validation").mkdir(exist_ok=True)
        shutil.copy(path, part / "validation")


def strip_name(path: Path) -> None:
    """Remove `_name_or_path` from a JSON file, where diffusers stores the folder that a component was loaded from."""
    config: dict[str, Any] | list[Any] = json.loads(path.read_text())
    if isinstance(config, dict) and "_name_or_path" in config:
        path.write_text(json.dumps({k: v for k, v in config.items() if k != "_name_or_path"}, indent=2) + "\n")


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


def read_training(folder: Path) -> dict[str, Any]:
    """The content of training.json, with current keys; empty if there is no such file, as in an export."""
    path = folder / TRAINING
    if not path.is_file():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "version" not in record:  # written before 0.1.0
        record["regularization_rows"] = record.pop("general_rows")
        params = record["params"]
        for old, new in RENAMED_KEYS.items():
            params[new.removeprefix("train.")] = params.pop(old.removeprefix("train."), None)
        for (key, old), new in RENAMED_VALUES.items():
            name = key.removeprefix("train.")
            params[name] = new if params.get(name) == old else params.get(name)
    return record
