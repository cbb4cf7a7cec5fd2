"""The device memory that training needs, computed without weights, without data and without the device.

The code of a training step runs on fake tensors, which have shapes and no values, while a dispatch mode counts the
bytes that are alive at once. Weights, gradients and optimizer states are counted by their number of elements.
"""

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

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
from taming_core.bases.supported import require_text_to_image
from taming_core.model import clip, lora, towers
from taming_core.model.attention import LAYERS, inject, layer_channels
from taming_core.model.collage import inject_collage
from taming_core.model.diffusion import Noise, Schedule, noise_schedule_of, prediction_type
from taming_core.model.inputs import Batch
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.model.subject_model import SubjectModel, unfreeze
from taming_core.params.load import Params
from taming_core.params.train import TrainParams
from taming_core.projects import architectures
from taming_core.training import distributed
from taming_core.training.feature_cache import offloaded_networks
from taming_core.training.gradient_checkpointing import enable_gradient_checkpointing
from taming_core.training.identity import NETWORKS, identity_features, image_side
from taming_core.training.loop import cast_frozen
from taming_core.training.objective import IdentityNetwork, SampleWeights, compute_loss_terms, total_loss
from taming_core.training.start import collage_size, latent_encoder, select_layers
from taming_core.weights.device import DTYPES
from taming_core.weights.mini import BASE, PIPELINE
from taming_core.weights.precision import float32_names

GIB = 2**30
CONTEXT = 0.8 * GIB  # memory of CUDA and its libraries before the first tensor
FRAGMENTS = 0.05  # share of the total that is lost to fragmentation in the allocator


@dataclass(frozen=True)
class MemoryNeed:
    """Peak bytes of training on the device."""

    weights: int
    gradients: int
    optimizer: int  # moments of the gradients, and the EMA of the weights
    step: int  # peak of activations and all other temporary tensors

    @property
    def total(self) -> float:
        """The sum, with the overhead of CUDA and of fragmentation."""
        return CONTEXT + (1 + FRAGMENTS) * (self.weights + self.gradients + self.optimizer + self.step)


class AllocationTracker(TorchDispatchMode):
    """Counts the bytes of all storages that were allocated within and are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  (torch does not type it)
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {_key(storage) for storage in storages((args, kwargs))}  # the output may be a view of one
        for storage in storages(out):
            if _key(storage) not in inputs:
                self._hold(storage)
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = _key(storage), storage.nbytes()
        if key in self._alive:
            return

        def release(_: object) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, release)
        self.now += size
        self.peak = max(self.peak, self.now)


def _key(storage: torch.UntypedStorage) -> int:
    """An integer that is the same for all Python objects of one storage."""
    return storage._cdata  # pyright: ignore[reportPrivateUsage]  (fake tensors have no data_ptr)


def storages(nested: Any) -> list[torch.UntypedStorage]:
    """The storages of all tensors in a nested structure."""
    return [leaf.untyped_storage() for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


class WorstCaseBatch(TorchFunctionMode):
    """Answers what depends on tensor values as for the largest batch: every sample has an object and every loss."""

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
    """A tokenizer of which only the sequence length matters."""

    model_max_length: int

    def convert_tokens_to_ids(self, _: str) -> int:
        return 0

    def __call__(self, prompts: list[str], **_: Any) -> Any:
        return SimpleNamespace(input_ids=torch.zeros(len(prompts), self.model_max_length, dtype=torch.long))


def memory_need(params: Params, processes: int = 1) -> MemoryNeed:
    """The memory that `taming train` needs with these params on each device.

    Args:
        params: the params.
        processes: how many share the denoiser's weights, by --shard; 1 without it.

    Raises:
        TamingError: the configs of a model are not on this machine, or do not fit together.
    """
    p, m = params.train, params.materialize
    sizes = [tuple(size) for size in m.buckets or [[m.size, m.size]]]
    configs = configs_of(p)
    schedule = schedule_of(configs["scheduler"])
    with fake_tensors(p, processes > 1):
        with (
            no_init_weights()
        ):  # truncated initialization redraws until all values are in range, which fake ones never are
            model, identity = model_of(configs, schedule, p)
        trained = prepare(model, p)
        groups = distributed.gathered_weights(model.family.denoiser)
        spared = partial(spared_by_sharding, groups, processes)
        count = sum(weight.numel() for weight in trained) - spared(lambda w: w.numel() if w.requires_grad else 0)
        step = step_bytes(model, identity, trained, p, max(sizes, key=lambda s: s[0] * s[1]))
        weights = weight_bytes(model, p) - spared(lambda w: w.nbytes)
        weights += 0 if identity is None else bytes_of(identity.network)
        step += gathered_bytes(groups) if processes > 1 else 0
    state_bytes = {"adamw": 8, "adamw8bit": 2}[p.optimizer] + (4 if p.ema else 0)  # per trained weight
    return MemoryNeed(weights, 4 * count, state_bytes * count, step)


@contextmanager
def fake_tensors(p: TrainParams, shard: bool) -> Generator[None, None, None]:
    """Within it tensors have no values, and the precision is that of training."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        no_device_moves(),
        WorstCaseBatch(),
        torch.autocast("cpu", torch.bfloat16, enabled=p.precision != "fp32", cache_enabled=not shard),
    ):
        yield


@contextmanager
def no_device_moves() -> Generator[None, None, None]:
    """Within it modules do not move: fake ones cannot, and peft moves a LoRA to the device of its layer."""
    original = nn.Module.to

    def stay(module: nn.Module, *_: object, **__: object) -> nn.Module:
        return module

    nn.Module.to = stay  # pyright: ignore[reportAttributeAccessIssue]  (`to` is overloaded)
    try:
        yield
    finally:
        nn.Module.to = original


@dataclass(frozen=True)
class FakeIdentityNetwork:
    """An identity network without weights, for its memory."""

    network: Any

    def __call__(self, images: Tensor) -> Tensor:
        size = image_side(self.network.config)
        return identity_features(self.network, F.interpolate(images, (size, size)))


def configs_of(p: TrainParams) -> dict[str, architectures.Config]:
    """The configs of the components that training starts from; raises TamingError if it takes more than a text."""
    spec = p.start if p.start is not None else p.base
    assert spec is not None  # checked when the params were read
    mini = PIPELINE if p.start is not None else BASE
    configs = architectures.pipeline_configs(str(mini) if spec == "mini" else spec)
    require_text_to_image(spec, configs)
    return configs


def schedule_of(config: architectures.Config) -> Schedule:
    """The noise schedule of a scheduler's config; its tables are real tensors, whose values it reads."""
    return noise_schedule_of(getattr(diffusers, config["_class_name"]).from_config(config))


def model_of(
    configs: Mapping[str, architectures.Config], schedule: Schedule, p: TrainParams
) -> tuple[SubjectModel, FakeIdentityNetwork | None]:
    """The networks of training in float32; to be called within `fake_tensors`."""
    parts = {name: network(config) for name, config in configs.items() if name not in ("scheduler", "object_encoder")}
    encoders = [name for name in family_class(parts).text_encoder_names if name in parts]
    parts |= {tokenizer_of(name): FakeTokenizer(text_length(parts[name].config)) for name in encoders}
    family = family_of(parts)
    if p.start is not None:
        encoder: Any = float32_norms(cast(Any, ObjectEncoder).from_config(configs["object_encoder"]))
        if p.collage is not None:
            encoder.add_collage(collage_size(family))
    else:
        encoder = encoder_of(family, p)
    inject(family.denoiser, encoder.config["injection"], encoder.denoiser_layers(), encoder.config["layers"],
           family.text_length)  # fmt: skip
    inject_collage(family.first_layer, encoder.collage_layer)
    return SubjectModel(family, encoder, schedule), fake_identity_network(p)


def fake_identity_network(p: TrainParams) -> FakeIdentityNetwork | None:
    """The identity network, if training has one; it stays in float32."""
    if p.identity_network is None:
        return None
    config = architectures.vision_config(clip.source(p.identity_network), "train.identity_network")
    kind = NETWORKS[config.get("model_type", "clip_vision_model")]
    return FakeIdentityNetwork(float32_norms(kind(kind.config_class(**config))).requires_grad_(False))


def encoder_of(family: Any, p: TrainParams) -> ObjectEncoder:
    """A new object encoder by the params, as `training.start` makes it from a tower with weights."""
    assert p.injection is not None
    layers = select_layers(layer_channels(family.denoiser, p.injection), p.layers)
    added = layers if p.injection in LAYERS or p.layers is not None else None
    settings: dict[str, Any] = {"injection": p.injection, "layers": added,
                                "collage": None if p.collage is None else list(collage_size(family))}  # fmt: skip
    if p.encoder is None:
        return latent_encoder(family, settings)
    tower = architectures.vision_config(clip.source(p.encoder.tower), towers.KEY)
    return float32_norms(ObjectEncoder(tower, p.encoder.projector, p.encoder.tokens, family.width, **settings))


def network(config: Mapping[str, Any]) -> Any:
    """The untrained network of a diffusers or transformers config."""
    if "_class_name" in config:
        return float32_norms(getattr(diffusers, config["_class_name"]).from_config(dict(config)))
    model_class: Any = getattr(transformers, config["architectures"][0])
    return float32_norms(model_class(model_class.config_class(**config)))


def float32_norms(model: Any) -> Any:
    """The model with norms that compute in float32, as autocast does on a GPU and not on a CPU."""
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
    """Maximum tokens of a text encoder; T5 has no limit, and was trained with 512."""
    return getattr(config, "max_position_embeddings", 512)


def prepare(model: SubjectModel, p: TrainParams) -> list[nn.Parameter]:
    """Add the LoRA, checkpointing and precision of the params to the model; returns the trained weights."""
    if p.lora is not None:
        lora.add_lora(model.family.denoiser, p.lora, p.seed)
    if p.gradient_checkpointing:
        enable_gradient_checkpointing(model.family)
    trained = [weight for part in unfreeze(model, p).values() for weight in part.values()]
    for name, part in model.networks.items():  # as `loop.move_to_device` does
        if p.precision == "bf16" or (p.precision == "fp16" and name != "vae"):
            cast_frozen(part, torch.bfloat16, float32_names(part, DTYPES[p.precision]))
    return trained


def bytes_of(module: nn.Module) -> int:
    """Bytes of a network's weights."""
    return sum(weight.nbytes for weight in module.parameters())


def weight_bytes(model: SubjectModel, p: TrainParams) -> int:
    """Bytes of all weights on the device, without offloaded networks; assumes that some object has a single photo."""
    networks = offloaded_networks(model, p, fewest_views=0).values()
    offloaded = {id(w) for network in networks for w in network.parameters()}
    weights = {id(w): w for part in model.networks.values() for w in part.parameters()}
    return sum(w.nbytes for key, w in weights.items() if key not in offloaded)


def spared_by_sharding(
    groups: Sequence[Sequence[nn.Parameter]], processes: int, size: Callable[[nn.Parameter], int]
) -> int:
    """How much of the sizes of all weights a process does not hold, since the others do."""
    whole = sum(size(weight) for group in groups for weight in group)
    return whole - whole // processes


def gathered_bytes(groups: Sequence[Sequence[nn.Parameter]]) -> int:
    """Bytes that FSDP gathers at most: the weights outside of blocks, and two blocks, one of them ahead of its use.

    The gradients of two blocks are whole too, while one of them is summed and sharded.
    """
    *blocks, rest = ([w.nbytes + (w.nbytes if w.requires_grad else 0) for w in group] for group in groups)
    return sum(rest) + 2 * max((sum(block) for block in blocks), default=0)


def step_bytes(
    model: SubjectModel,
    identity: IdentityNetwork | None,
    trained: list[nn.Parameter],
    p: TrainParams,
    size: tuple[int, ...],
) -> int:
    """Peak bytes of a step without weights and gradients, for images of this width and height."""
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    batch, noise = batch_of(model, p, size)
    with AllocationTracker() as tracker:
        step(model, identity, batch, noise, p)
    return tracker.peak


def step(model: SubjectModel, identity: IdentityNetwork | None, batch: Batch, noise: Noise, p: TrainParams) -> None:
    """Compute the gradients of a micro-batch in which every sample has every loss."""
    ones = torch.ones(len(batch.row_ids))
    terms = compute_loss_terms(model, identity, batch, noise, SampleWeights(ones, ones, ones), p)
    total_loss(**{f.name: getattr(terms, f.name) for f in fields(terms)}, p=p).backward()


def batch_of(model: SubjectModel, p: TrainParams, size: tuple[int, ...]) -> tuple[Batch, Noise]:
    """A micro-batch of zeros, and its noise."""
    n, (columns, rows), family = p.micro_batch_size, size, model.family
    side, objects = model.object_encoder.image_size, 2 if p.two_objects > 0 else 1
    latents = torch.zeros(
        n, family.latent_channels, rows // family.vae_scale_factor, columns // family.vae_scale_factor
    )
    batch = Batch(
        row_ids=("",) * n, target=torch.zeros(n, 3, rows, columns), mask=torch.ones(n, 1, rows, columns),
        tokens=torch.zeros(n, sum(family.lengths), dtype=torch.long), object_counts=(objects,) * n,
        subject=torch.zeros(n, objects, p.references, 3, side, side), view=torch.zeros(n, 3, side, side),
        frame=torch.zeros(n, 4), boxes=torch.zeros(n, objects, 4) if p.collage is not None else None,
    )  # fmt: skip
    guidance = torch.ones(n) if family.reads_guidance else None
    kind = torch.float32 if prediction_type(model.schedule) == "flow" else torch.long
    noise = Noise(torch.zeros(n, dtype=kind), latents, latents.clone(), guidance)
    return replace(batch, **cached_fields(model, batch, latents, p)), noise


@torch.no_grad()
def cached_fields(model: SubjectModel, batch: Batch, latents: Tensor, p: TrainParams) -> dict[str, Any]:
    """The fields of a batch that the feature caches fill."""
    values: dict[str, Any] = {}
    if "latents" in p.cache:
        values |= {"target": None, "latent_mean": latents, "latent_std": latents}
    if "text" in p.cache:
        values |= {f"text_{name}": value for name, value in model.family.text(batch.tokens)._asdict().items()}
    if "tower" in p.cache:
        features = model.object_encoder.tower_features(batch.subject.flatten(0, 2))
        shape = batch.subject.shape[:3]
        values |= {"tower_features": features.unflatten(0, shape), "cached": torch.ones(shape, dtype=torch.bool)}
    return values
