"""How much memory of a device a training needs, found without weights, without data and without the device.

The very code of a training step runs on pretended tensors, which have shapes and no numbers, while a watch counts what
is held at once. Parameters, gradients and the optimizer's averages are counted by their numbers.
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.initialization import no_init_weights

from taming_core.bases.families import family_class, family_of
from taming_core.bases.family import tokenizer_of
from taming_core.model import clip, lora, towers
from taming_core.model.attention import LAYERS, inject, layer_channels
from taming_core.model.diffusion import Noise, Schedule, noise_schedule_of
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.model.subject_model import SubjectModel, unfreeze
from taming_core.params.load import Params
from taming_core.params.train import TrainParams
from taming_core.projects import architectures
from taming_core.training.batches import Batch
from taming_core.training.feature_cache import offloaded_networks
from taming_core.training.gradient_checkpointing import enable_gradient_checkpointing
from taming_core.training.loop import cast_frozen
from taming_core.training.objective import IdentityNetwork, SampleWeights, compute_loss_terms, total_loss
from taming_core.training.start import latent_encoder, select_layers
from taming_core.weights.mini import BASE, PIPELINE

GIB = 2**30
CONTEXT = 0.8 * GIB  # what CUDA and its libraries take before the first tensor
FRAGMENTS = 0.05  # of everything, lost between the blocks of the allocator


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a training holds on the device at its fullest moment."""

    weights: int
    gradients: int
    optimizer: int  # its averages, and the moving average that `ema` keeps
    step: int  # activations and all else that comes and goes

    @property
    def total(self) -> float:
        """With what CUDA takes and what is lost to fragmentation."""
        return CONTEXT + (1 + FRAGMENTS) * (self.weights + self.gradients + self.optimizer + self.step)


class AllocationTracker(TorchDispatchMode):
    """Counts the bytes of all storages that were made within and are still alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in storages((args, kwargs))}  # of which the result may be a view
        for storage in storages(out):
            if storage._cdata not in given:
                self._hold(storage)
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def storages(nested: Any) -> list[torch.UntypedStorage]:
    """Of all tensors in a nested structure."""
    return [leaf.untyped_storage() for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


class WorstCaseBatch(TorchFunctionMode):
    """Answers what depends on numbers as for the fullest batch: every sample shows an object, and counts everywhere."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.any and len(args) == 1:
            return args[0].numel() > 0
        if func is Tensor.__bool__:
            return True
        if func is Tensor.nonzero and args[0].ndim == 1:
            return torch.arange(len(args[0])).unsqueeze(1)
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            kept, mask = args
            return kept.clone() if mask.ndim == 1 else kept.flatten(0, mask.ndim - 1)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class FakeTokenizer:
    """Stands for a tokenizer, of which only the length counts here."""

    model_max_length: int

    def convert_tokens_to_ids(self, _: str) -> int:
        return 0

    def __call__(self, prompts: list[str], **_: Any) -> Any:
        return SimpleNamespace(input_ids=torch.zeros(len(prompts), self.model_max_length, dtype=torch.long))


def memory_need(params: Params) -> MemoryNeed:
    """The memory that `taming train` needs with these params.

    Raises:
        TamingError: the configs of a model are not on this machine, or do not go together.
    """
    p, m = params.train, params.materialize
    sizes = [tuple(size) for size in m.buckets or [[m.size, m.size]]]
    configs = configs_of(p)
    schedule = schedule_of(configs["scheduler"])
    with fake_tensors(p):
        with no_init_weights():  # which draws again until all numbers are in range: pretended ones never are
            model, identity = model_of(configs, schedule, p)
        trained = prepare(model, p)
        numbers = sum(weight.numel() for weight in trained)
        most = step_bytes(model, identity, trained, p, max(sizes, key=lambda s: s[0] * s[1]))
        weights = weight_bytes(model, p) + (0 if identity is None else bytes_of(identity.network))
    averages = {"adamw": 8, "adamw8bit": 2}[p.optimizer] + (4 if p.ema else 0)
    return MemoryNeed(weights, 4 * numbers, averages * numbers, most)


@contextmanager
def fake_tensors(p: TrainParams) -> Iterator[None]:
    """Tensors without numbers, and the precision of a training."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        no_device_moves(),
        WorstCaseBatch(),
        torch.autocast("cpu", torch.bfloat16, enabled=p.precision != "fp32"),
    ):
        yield


@contextmanager
def no_device_moves() -> Iterator[None]:
    """Modules stay where they are, which pretended ones cannot but do: peft wants to put a LoRA beside its layer."""
    own = nn.Module.to
    nn.Module.to = lambda self, *_, **__: self  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        nn.Module.to = own


@dataclass(frozen=True)
class FakeIdentityNetwork:
    """An identity network that only has a size."""

    network: Any

    def __call__(self, images: Tensor) -> Tensor:
        size = self.network.config.image_size
        return self.network(pixel_values=F.interpolate(images, (size, size))).image_embeds.float()


def configs_of(p: TrainParams) -> dict[str, architectures.Config]:
    """The configs of what training starts from."""
    spec = p.start if p.start is not None else p.base
    assert spec is not None  # checked when the params were read
    mini = PIPELINE if p.start is not None else BASE
    return architectures.pipeline_configs(str(mini) if spec == "mini" else spec)


def schedule_of(config: architectures.Config) -> Schedule:
    """The noise schedule of a scheduler's config; its tables are real, for it asks them for numbers."""
    return noise_schedule_of(getattr(diffusers, config["_class_name"]).from_config(config))


def model_of(
    configs: Mapping[str, architectures.Config], schedule: Schedule, p: TrainParams
) -> tuple[SubjectModel, FakeIdentityNetwork | None]:
    """The networks of a training in float32; called where tensors are pretended."""
    parts = {name: network(config) for name, config in configs.items() if name not in ("scheduler", "object_encoder")}
    encoders = [name for name in family_class(parts).text_encoder_names if name in parts]
    parts |= {tokenizer_of(name): FakeTokenizer(text_length(parts[name].config)) for name in encoders}
    family = family_of(parts)
    if p.start is not None:
        encoder: Any = float32_norms(ObjectEncoder.from_config(configs["object_encoder"]))
    else:
        encoder = encoder_of(family, p)
    inject(family.denoiser, encoder.config["injection"], encoder.denoiser_layers(), encoder.config["layers"],
           family.text_length)  # fmt: skip
    return SubjectModel(family, encoder, schedule), fake_identity_network(p)


def fake_identity_network(p: TrainParams) -> FakeIdentityNetwork | None:
    """The identity network, if training has one; it stays in float32."""
    if p.identity_network is None:
        return None
    found = architectures.vision_config(clip.source(p.identity_network), "train.identity_network")
    network = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**found))
    return FakeIdentityNetwork(float32_norms(network).requires_grad_(False))


def encoder_of(family: Any, p: TrainParams) -> ObjectEncoder:
    """A fresh object encoder of the params, as `fresh` makes it of a tower with weights."""
    assert p.injection is not None
    layers = select_layers(layer_channels(family.denoiser, p.injection), p.layers)
    added = layers if p.injection in LAYERS or p.layers is not None else None
    settings = {"injection": p.injection, "layers": added}
    if p.encoder is None:
        return latent_encoder(family, settings)
    tower = architectures.vision_config(clip.source(p.encoder.tower), towers.KEY)
    return float32_norms(ObjectEncoder(tower, p.encoder.projector, p.encoder.tokens, family.width, **settings))


def network(config: Mapping[str, Any]) -> Any:
    """The network of a config, untrained."""
    if "_class_name" in config:
        found: Any = getattr(diffusers, config["_class_name"]).from_config(dict(config))
    else:
        made: Any = getattr(transformers, config["architectures"][0])
        found = made(made.config_class(**config))
    return float32_norms(found)


def float32_norms(model: Any) -> Any:
    """The model with norms that compute in float32, as autocast has them on a GPU and not on the CPU."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = partial(_group_norm, module)
        elif isinstance(module, nn.LayerNorm):
            module.forward = partial(_layer_norm, module)
    return model


def _group_norm(m: nn.GroupNorm, input: Tensor) -> Tensor:
    return F.group_norm(input.float(), m.num_groups, _float(m.weight), _float(m.bias), m.eps)


def _layer_norm(m: nn.LayerNorm, input: Tensor) -> Tensor:
    return F.layer_norm(input.float(), m.normalized_shape, _float(m.weight), _float(m.bias), m.eps)


def _float(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.float()


def text_length(config: Any) -> int:
    """Tokens that a text encoder reads; T5 has no limit, and 512 is what it was trained on."""
    return getattr(config, "max_position_embeddings", 512)


def prepare(model: SubjectModel, p: TrainParams) -> list[nn.Parameter]:
    """What trains, after the model was given what the params want, and the precision of a training."""
    if p.lora is not None:
        lora.add_lora(model.family.denoiser, p.lora, p.seed)
    if p.gradient_checkpointing:
        enable_gradient_checkpointing(model.family.denoiser)
    trained = [weight for part in unfreeze(model, p).values() for weight in part.values()]
    for name, part in model.networks.items():  # as `training.place` does
        if p.precision == "bf16" or (p.precision == "fp16" and name != "vae"):
            cast_frozen(part, torch.bfloat16)
    return trained


def bytes_of(module: nn.Module) -> int:
    """Of a network's weights."""
    return sum(weight.nbytes for weight in module.parameters())


def weight_bytes(model: SubjectModel, p: TrainParams) -> int:
    """All weights on the device, without the parts that wait elsewhere; some things count as shown by one photo."""
    lone: Any = SimpleNamespace(column=lambda _: [[]], objects=[0])
    waiting = {id(w) for part in offloaded_networks(model, p, lone).values() for w in part.parameters()}
    there = {id(w): w for part in model.networks.values() for w in part.parameters()}
    return sum(w.nbytes for key, w in there.items() if key not in waiting)


def step_bytes(
    model: SubjectModel,
    identity: IdentityNetwork | None,
    trained: list[nn.Parameter],
    p: TrainParams,
    size: tuple[int, ...],
) -> int:
    """The most that a step holds beside weights and gradients, with images of this width and height."""
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    batch, drawn = batch_of(model, p, size)
    with AllocationTracker() as held:
        step(model, identity, batch, drawn, p)
    return held.peak


def step(model: SubjectModel, identity: IdentityNetwork | None, batch: Batch, drawn: Noise, p: TrainParams) -> None:
    """The gradients of a micro-batch, of which every sample counts in every loss that there is."""
    ones = torch.ones(len(batch.row_ids))
    counts = SampleWeights(ones, ones, ones if p.localization_weight > 0 else torch.zeros(0))
    terms = compute_loss_terms(model, identity, batch, drawn, counts, p)
    total_loss(**{f.name: getattr(terms, f.name) for f in fields(terms)}, p=p).backward()


def batch_of(model: SubjectModel, p: TrainParams, size: tuple[int, ...]) -> tuple[Batch, Noise]:
    """A micro-batch of nothing, and its noise."""
    n, (columns, rows), family = p.micro_batch_size, size, model.family
    side = model.object_encoder.image_size
    latents = torch.zeros(
        n, family.latent_channels, rows // family.vae_scale_factor, columns // family.vae_scale_factor
    )
    batch = Batch(
        row_ids=("",) * n, target=torch.zeros(n, 3, rows, columns), mask=torch.ones(n, 1, rows, columns),
        tokens=torch.zeros(n, sum(family.lengths), dtype=torch.long), present=torch.ones(n, dtype=torch.bool),
        subject=torch.zeros(n, p.references, 3, side, side), view=torch.zeros(n, 3, side, side),
        frame=torch.zeros(n, 4),
    )  # fmt: skip
    drawn = Noise(torch.zeros(n, dtype=torch.long), latents, latents.clone())
    return replace(batch, **cached(model, batch, latents, p)), drawn


@torch.no_grad()
def cached(model: SubjectModel, batch: Batch, latents: Tensor, p: TrainParams) -> dict[str, Any]:
    """What the caches know of a batch."""
    known: dict[str, Any] = {}
    if "latents" in p.cache:
        known |= {"target": None, "latent_mean": latents, "latent_std": latents}
    if "text" in p.cache:
        known |= {f"text_{name}": value for name, value in model.family.text(batch.tokens)._asdict().items()}
    if "tower" in p.cache:
        seen = model.object_encoder.tower_features(batch.subject.flatten(0, 1))
        shape = batch.subject.shape[:2]
        known |= {"tower_features": seen.unflatten(0, shape), "cached": torch.ones(shape, dtype=torch.bool)}
    return known
