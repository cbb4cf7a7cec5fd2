"""Distributed training: each process computes its share of a batch, and gradients are summed over the processes.

The weights are replicated, or with `shard` those of the denoiser are sharded (FSDP: Zhao et al., 2023).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from taming_core.errors import TamingError
from taming_core.params.train import TrainParams

T = TypeVar("T")

BUCKET = 2**25  # numbers per all-reduce
JOINING = timedelta(minutes=10)  # until all processes must have started; NCCL's own default
TIMEOUT = timedelta(days=7)  # while the main process draws or writes, and the others wait


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process among the processes of a training."""

    rank: int = 0
    world_size: int = 1
    cpu_group: Any = None  # a gloo group for tensors on the CPU, which need no synchronization with the device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """The slice of a batch of `size` that this process computes.

        >>> ProcessGroup(1, 2).share(8)
        slice(4, 8, None)
        """
        each = size // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: Shaped[Tensor, " _"]) -> Shaped[Tensor, " _"]:
        """The tensors of all processes, concatenated; on the CPU."""
        if self.world_size == 1:
            return values
        gathered = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(gathered, values.contiguous(), group=self.cpu_group)
        return torch.cat(gathered)

    def gather_objects(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks; any that can be pickled."""
        gathered: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(gathered, value, group=self.cpu_group)
        return gathered

    def max(self, value: int) -> int:
        """The largest value of all processes."""
        largest = torch.tensor(value)
        if self.world_size > 1:
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.cpu_group)
        return int(largest)

    def barrier(self) -> None:
        """Wait until all processes have called it."""
        if self.world_size > 1:
            dist.barrier(group=self.cpu_group)

    def shutdown(self) -> None:
        """Leave the group when all processes are done."""
        if self.world_size > 1:
            self.barrier()
            dist.destroy_process_group()


def join_process_group(rank: int, world_size: int) -> ProcessGroup:
    """The processes that the launcher started; a single process needs no communication."""
    return ProcessGroup(rank, world_size, dist.new_group(backend="gloo", timeout=TIMEOUT) if world_size > 1 else None)


def require_divisible(world_size: int, p: TrainParams, shard: bool, injection: str) -> None:
    """Require params and a design that these processes support.

    Raises:
        TamingError: they do not; the message names what to set.
    """
    if p.batch_size % (world_size * p.micro_batch_size):
        raise TamingError(
            f"train.batch_size is {p.batch_size}, which {world_size} processes cannot share in micro-batches of "
            f"{p.micro_batch_size}. Set it to {world_size * p.micro_batch_size} times n."
        )
    if not shard:
        return
    if world_size == 1:
        raise TamingError("--shard needs several processes. Start them with `torchrun`, or leave it out.")
    if injection not in ("decoupled", "gated"):
        raise TamingError(f"--shard cannot be used with {injection}: its number of denoiser passes depends on the "
                          "batch, so that processes would deadlock. Leave it out, or train a decoupled or gated "
                          "design.")  # fmt: skip
    keys = {"precision to bf16": p.precision == "fp16", "optimizer to adamw": p.optimizer == "adamw8bit",
            "compile to false": p.compile, "two_objects to 0": p.two_objects > 0}  # fmt: skip
    if any(keys.values()):
        key = next(key for key, conflicts in keys.items() if conflicts)
        raise TamingError(f"--shard cannot be used with these params. Set train.{key}, or leave it out.")


def shard(denoiser: Any, world_size: int, device: torch.device) -> None:
    """Shard the denoiser's weights: a process gathers those of a block only while it computes the block.

    From a denoiser on the CPU, FSDP moves one block at a time to the device, and keeps this process's shard of it.
    """
    mesh = init_device_mesh(device.type, (world_size,))
    for module in sharded_modules(denoiser):
        fully_shard(module, mesh=mesh)
    for module in denoiser.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_gradient_divide_factor(1.0)  # gradients are summed, not averaged
            module.set_force_sum_reduction_for_comms(True)


def sharded_modules(denoiser: Any) -> list[nn.Module]:
    """The modules whose weights are gathered together: blocks, the inner ones first, and the denoiser for the rest."""
    modules: list[nn.Module] = list(denoiser.modules())
    return [*(m for m in reversed(modules) if type(m).__name__ in denoiser._no_split_modules), denoiser]


def gathered_weights(denoiser: Any) -> list[list[nn.Parameter]]:
    """The weights of each of `sharded_modules`, without those of modules before it."""
    groups, seen = list[list[nn.Parameter]](), set[int]()
    for module in sharded_modules(denoiser):
        groups.append([w for w in module.parameters() if id(w) not in seen])
        seen |= {id(w) for w in groups[-1]}
    return groups


@contextmanager
def layers_on_device(denoiser: nn.Module, device: torch.device) -> Generator[None, None, None]:
    """Within it a denoiser on the CPU computes on the device, which holds the weights of one layer at a time."""
    cpu_offload(denoiser, device)
    try:
        yield
    finally:
        remove_hook_from_submodules(denoiser)


@torch.no_grad()
def all_reduce_gradients(weights: Sequence[nn.Parameter], processes: ProcessGroup) -> None:
    """Replace every gradient by its sum over all processes; a gradient that is None in all of them stays None.

    Gradients of sharded weights are sums already.
    """
    if processes.world_size == 1:
        return
    replicated = [w for w in weights if not isinstance(w, DTensor)]
    has_gradient = torch.tensor([w.grad is not None for w in replicated], dtype=torch.uint8)
    dist.all_reduce(has_gradient, dist.ReduceOp.MAX, group=processes.cpu_group)
    with_gradient = [w for w, anywhere in zip(replicated, has_gradient, strict=True) if bool(anywhere)]
    for bucket in buckets(with_gradient):
        flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in bucket])
        dist.all_reduce(flat)
        for weight, total in zip(bucket, torch.split(flat, [w.numel() for w in bucket]), strict=True):
            weight.grad = torch.empty_like(weight).copy_(total.view_as(weight))  # in the weight's memory format


def buckets(weights: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The weights in their order, in groups of at most `BUCKET` numbers or of one weight."""
    groups: list[list[nn.Parameter]] = []
    size = BUCKET
    for weight in weights:
        if size + weight.numel() > BUCKET:
            groups.append([])
            size = 0
        groups[-1].append(weight)
        size += weight.numel()
    return groups


@torch.no_grad()
def clip_sharded_gradients(weights: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Clip gradients, some of them sharded, to a total norm of `max_norm`; returns the norm before clipping."""
    gradients = [w.grad for w in weights if w.grad is not None]
    replicated = [g for g in gradients if not isinstance(g, DTensor)]
    local_shards = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    square = nn.utils.get_total_norm(local_shards) ** 2
    dist.all_reduce(square)
    norm = (square + nn.utils.get_total_norm(replicated).to(square.device) ** 2).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for group in filter(None, (replicated, local_shards)):
        torch._foreach_mul_(group, factor)  # pyright: ignore[reportPrivateUsage]  # one kernel for all; has no public name
    return norm


def all_reduce(figures: Tensor, processes: ProcessGroup) -> Tensor:
    """Sum in place over all processes, on the device."""
    if processes.world_size > 1:
        dist.all_reduce(figures)
    return figures


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor on the CPU; for a sharded tensor all processes must call it."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


@torch.no_grad()
def copy_full(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if isinstance(target, DTensor):
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
    target.copy_(whole)
