"""Several processes that train one network, each on its share of every batch; torchrun starts them.

    torchrun --nproc-per-node=2 -m training cifar …

Each process has all images and draws the same random numbers. Of each batch process r of n trains
on rows r, r + n, r + 2n, …, and the gradients are added up: the recipe's batch and learning rates
keep their meaning. The first process alone prints, keeps checkpoints and publishes.

BatchNorm takes its statistics from each process's own rows: PyTorch's synchronised one is for GPUs
only, and exchanging them in each layer would cost more than the layers. The running statistics,
with which the network is evaluated and published, are averaged in each step.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from training.errors import JobError
from training.fit.device import Device

# The others wait while the first process downloads, evaluates, exports and publishes. PyTorch's own
# limit of 10 minutes (NCCL) or 30 (gloo) would end that; a lost process ends the wait by itself.
LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True)
class ProcessGroup:
    """Process ``rank`` of ``size``; alone unless torchrun says otherwise."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Is this the process that prints, keeps and publishes?"""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of ``rows`` [n, …]. Raises JobError if there is none for some."""
        if len(rows) < self.size:
            raise JobError(
                f"a batch has {len(rows)} images, fewer than there are processes ({self.size}); "
                "start fewer of them"
            )
        return rows[self.rank :: self.size]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of the tensors, on one device, by its sum over the processes."""
        if self.size == 1:
            return
        parts = list(tensors)
        together = torch.cat([part.reshape(-1).float() for part in parts])
        distributed.all_reduce(together)
        for part, summed in zip(parts, together.split([p.numel() for p in parts]), strict=True):
            part.copy_(summed.view(part.shape))

    def add_up_gradients(self, network: nn.Module, *others: Tensor) -> None:
        """Add up the gradients of ``network`` and ``others``; average running statistics."""
        if self.size == 1:
            return
        statistics = [b for b in network.buffers() if b.is_floating_point()]
        for each in statistics:
            each.div_(self.size)
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        self.add_up([*gradients, *statistics, *others])

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of the tensors by the first process's."""
        if self.size > 1:
            for tensor in tensors:
                contiguous = tensor.contiguous()
                distributed.broadcast(contiguous, 0)
                tensor.copy_(contiguous)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def require_same(self, what: str, *numbers: int) -> None:
        """Raise JobError unless all processes have the same numbers."""
        if self.size == 1:
            return
        mine = torch.tensor(numbers, device=_device())
        firsts = mine.clone()
        distributed.broadcast(firsts, 0)
        differs = (mine != firsts).any().long()
        distributed.all_reduce(differs)
        if differs:
            raise JobError(f"the processes differ in {what}")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let only the first process print."""
        if self.leads:
            yield
            return
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            yield


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join(device: Device) -> Iterator[tuple[ProcessGroup, Device]]:
    """This process's group, and its device: of several GPUs, one each. Alone without torchrun.

    gloo connects CPUs, NCCL connects GPUs. Raises JobError if there are too few GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS, device
        return
    # Not in every build of PyTorch.
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if device.torch.type == "cuda":
        index = int(os.environ["LOCAL_RANK"])
        if index >= torch.cuda.device_count():
            raise JobError(
                f"there are {torch.cuda.device_count()} GPUs on this machine; "
                "--nproc-per-node= should be no more"
            )
        torch.cuda.set_device(index)
        device = Device(torch.device("cuda", index), device.bfloat16)
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    if one_machine and (loopback := _loopback()):
        # Nothing listens on the network, and the host's name need not resolve.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    store, rank, _ = next(rendezvous("env://"))
    if one_machine:
        # torchrun keeps its store when it restarts all (--max-restarts). There the addresses of the
        # processes before are, which the new ones would try to reach: an attempt has its own keys.
        # (Each machine counts its attempts for itself, so that several have none in common.)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group(
        "nccl" if device.torch.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=LONGEST_WAIT,
    )
    try:
        group = ProcessGroup(rank, size)
        yield group, device
        group.wait()  # A process that leaves early closes connections that others still use.
    finally:
        distributed.destroy_process_group()


def _loopback() -> str | None:
    """The name of the loopback interface; None where it has another than Linux's and macOS's."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)


def _device() -> torch.device:
    """Where tensors that are sent must be."""
    cuda = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
