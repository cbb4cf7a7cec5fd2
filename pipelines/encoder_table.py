"""Write the table of docs/explanation/training.md: what a folder and the start of a training take, for every profile.

All of it is computed from the configs, without weights; seconds are bytes at a rate of hashing.

Example:  python -m pipelines.encoder_table docs/explanation/training.md
"""

import sys
from pathlib import Path

import torch
from transformers.initialization import no_init_weights

from pipelines.memory_table import params_of, write
from taming_core.model.subject_model import SubjectModel
from taming_core.params.train import TrainParams
from taming_core.projects import memory, profiles
from taming_core.training.start import running_dtypes
from taming_core.weights.precision import float32_names

MARKS = "<!-- encoders -->\n", "<!-- end of encoders -->\n"
HEAD = ("profile", "standalone folder", "folder", "memory, all in float32", "memory, as it runs", "hashing all",
        "hashing the encoder")  # fmt: skip
RATE = 0.75e9  # bytes a second of BLAKE2b, on one core


def main(page: Path) -> None:
    """Replace the table of the page."""
    write(page, MARKS, HEAD, [row(profile) for profile in profiles.IP_ADAPTERS])


def row(profile: str) -> list[str]:
    """The figures of one profile: GB before and after for the folder and in CPU memory, seconds for the digests."""
    p = params_of(profiles.params_text(profile, None)).train
    configs = memory.configs_of(p)
    schedule = memory.schedule_of(configs["scheduler"])
    with memory.fake_tensors(p, shard=False), no_init_weights():
        model, _ = memory.model_of(configs, schedule, p)
    encoder = {"object_encoder": model.networks["object_encoder"]}
    whole = bytes_in(model.networks, dict.fromkeys(model.networks, torch.float16))
    full = bytes_in(model.networks, dict.fromkeys(model.networks, torch.float32))
    small = bytes_in(encoder, {"object_encoder": torch.float16})
    new = bytes_in(encoder, {"object_encoder": torch.float32})
    sizes = (whole, small, full, bytes_in(model.networks, dtypes(model, p)))
    found = [f"`{profile}`", *(f"{size / 1e9:.1f} GB" for size in sizes), f"{full / RATE:.0f} s", f"{new / RATE:.0f} s"]
    print(*found, flush=True)
    return found


def dtypes(model: SubjectModel, p: TrainParams) -> dict[str, torch.dtype]:
    """The precision in which training loads each network, by its name in training."""
    loaded = running_dtypes(p)
    names = {name: model.family.denoiser_name if name == "denoiser" else name for name in model.networks}
    return {name: loaded.get(component, loaded["default"]) for name, component in names.items()}


def bytes_in(networks: dict[str, torch.nn.Module], precision: dict[str, torch.dtype]) -> int:
    """Bytes of networks in these precisions, by name; weights that their library keeps in float32 take 4."""
    total = 0
    for name, network in networks.items():
        kept = float32_names(network, precision[name])
        for weight_name, weight in network.named_parameters():
            total += weight.numel() * (4 if kept.search(weight_name) else precision[name].itemsize)
    return total


if __name__ == "__main__":
    main(Path(sys.argv[1]))
