"""Several processes train one model: each computes its share of a batch, and the gradients that they find are added up.

The weights are the same in all, or with `shard` the denoiser's are shared out among them (FSDP: Zhao et al., 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from taming_core.errors import TamingError
from taming_core.params.train import TrainParams

BUCKET = 2**25  # numbers that are added up at once
TIMEOUT = timedelta(days=7)  # while the first process draws or writes what all need


@dataclass(frozen=True)
class ProcessGroup:
    """Which of several processes this is."""

    rank: int = 0
    world_size: int = 1
    cpu_group: Any = None  # a group for tensors on the CPU, so that what the host must know waits for no device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """The places of a batch of `size` that this process computes.

        >>> ProcessGroup(1, 2).share(8)
        slice(4, 8, None)
        """
        each = size // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, present: Bool[Tensor, " share"]) -> Bool[Tensor, " batch"]:
        """What all processes hold, side by side; on the CPU."""
        if self.world_size == 1:
            return present
        found = [torch.empty_like(present) for _ in range(self.world_size)]
        dist.all_gather(found, present.contiguous(), group=self.cpu_group)
        return torch.cat(found)

    def barrier(self) -> None:
        """Until every process is here."""
        if self.world_size > 1:
            dist.barrier(group=self.cpu_group)

    def shutdown(self) -> None:
        """Say goodbye when all are done."""
        if self.world_size > 1:
            self.barrier()
            dist.destroy_process_group()


def join_process_group(rank: int, world_size: int) -> ProcessGroup:
    """The team that the launcher made; with one process there is nobody to talk to."""
    return ProcessGroup(rank, world_size, dist.new_group(backend="gloo", timeout=TIMEOUT) if world_size > 1 else None)


def require_divisible(world_size: int, p: TrainParams, shard: bool, injection: str) -> None:
    """Refuse what these processes cannot share.

    Raises:
        TamingError: naming what to set.
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
        raise TamingError(f"--shard cannot be used with {injection}, which asks the denoiser as often as a batch's "
                          "rows want it: processes would wait for each other for ever. Leave it out, or train a "
                          "decoupled or gated design.")  # fmt: skip
    if p.precision == "fp16" or p.optimizer == "adamw8bit":
        key = "precision to bf16" if p.precision == "fp16" else "optimizer to adamw"
        raise TamingError(f"--shard cannot be used with these params. Set train.{key}, or leave it out.")


def shard(denoiser: Any, world_size: int, device: torch.device) -> None:
    """Share the denoiser's weights out: each process holds a part, and all of a block's only while it is at work."""
    mesh = init_device_mesh(device.type, (world_size,))
    for module in [m for m in reversed(list(denoiser.modules())) if type(m).__name__ in denoiser._no_split_modules]:
        fully_shard(module, mesh=mesh)
    fully_shard(denoiser, mesh=mesh)
    for module in denoiser.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_gradient_divide_factor(1.0)  # what the processes find adds up; it is no mean
            module.set_force_sum_reduction_for_comms(True)


@torch.no_grad()
def all_reduce_gradients(weights: Sequence[nn.Parameter], processes: ProcessGroup) -> None:
    """Put in the place of every gradient its sum over all processes; one that no process has stays None.

    Gradients of weights that are shared out are sums already.
    """
    if processes.world_size == 1:
        return
    own = [w for w in weights if not isinstance(w, DTensor)]
    has_gradient = torch.tensor([w.grad is not None for w in own], dtype=torch.uint8)
    dist.all_reduce(has_gradient, dist.ReduceOp.MAX, group=processes.cpu_group)
    with_gradient = [w for w, anywhere in zip(own, has_gradient.tolist(), strict=True) if anywhere]
    for bucket in buckets(with_gradient):
        flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in bucket])
        dist.all_reduce(flat)
        for weight, total in zip(bucket, flat.split([w.numel() for w in bucket]), strict=True):
            weight.grad = torch.empty_like(weight).copy_(total.view_as(weight))  # in the weight's memory format


def buckets(weights: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The weights in their order, in groups small enough to be copied side by side."""
    found: list[list[nn.Parameter]] = []
    size = BUCKET
    for weight in weights:
        if size + weight.numel() > BUCKET:
            found.append([])
            size = 0
        found[-1].append(weight)
        size += weight.numel()
    return found


@torch.no_grad()
def clip_sharded_gradients(weights: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a norm of `most` at most, some of them shared out; returns their norm before."""
    gradients = [w.grad for w in weights if w.grad is not None]
    own = [g for g in gradients if not isinstance(g, DTensor)]
    parts = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    square = nn.utils.get_total_norm(parts) ** 2
    dist.all_reduce(square)
    norm = (square + nn.utils.get_total_norm(own).to(square.device) ** 2).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for group in filter(None, (own, parts)):
        torch._foreach_mul_(group, factor)
    return norm


def all_reduce(figures: Tensor, processes: ProcessGroup) -> Tensor:
    """The sum over all processes, on the device."""
    if processes.world_size > 1:
        dist.all_reduce(figures)
    return figures


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, on the CPU; of one that is shared out every process must ask."""
    found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found.detach().cpu()


@torch.no_grad()
def copy_full(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into one that may be shared out."""
    if isinstance(target, DTensor):
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
    target.copy_(whole)
