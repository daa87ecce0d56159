"""Where a run computes, and in which precision and memory layout."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from contract.system import set_malloc
from training.errors import JobError
from training.provenance import device_text


@dataclass(frozen=True)
class Device:
    """A torch device, with bfloat16 autocast where its hardware multiplies bfloat16."""

    torch: torch.device
    bfloat16: bool

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Context for the forward pass: in bfloat16 or fp32, with what makes it fast on a CPU."""
        convolutions = (_fast_convolutions() if self._on_cpu() else None) or nullcontext()
        with torch.autocast(self.torch.type, torch.bfloat16, enabled=self.bfloat16), convolutions:
            yield

    def advice(self) -> str | None:
        """Advice on how to make training faster on this machine, or None."""
        if not self._on_cpu() or _fast_convolutions() is not None:
            return None
        return "training would take less time if there were a C++ compiler, such as g++"

    def __str__(self) -> str:
        precision = "bf16 autocast" if self.bfloat16 else "fp32"
        fast = self._on_cpu() and _fast_convolutions() is not None
        return ", ".join((device_text(self.torch), precision, *(["Winograd"] if fast else [])))

    def _on_cpu(self) -> bool:
        return self.torch.type == "cpu"


def _fast_convolutions() -> AbstractContextManager[Any] | None:
    """Winograd's convolutions for CPUs; None where they are not available.

    The only place that refers to them: without winograd.py and winograd.cpp, or where a private
    name of PyTorch that they use is gone, training is slower and otherwise the same.
    """
    try:
        from training.fit import winograd
    except ImportError:
        return None
    return winograd.WinogradConvolutions() if winograd.transforms() is not None else None


def choose_device(name: str) -> Device:
    """The device for ``--device``: cpu, cuda, cuda:1, … Raises JobError if it isn't there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise JobError(f"--device {name}: no such device; use cpu or cuda") from None
    if device.type == "cpu":
        _keep_freed_memory()
        return Device(device, bfloat16=_cpu_multiplies_bfloat16())
    if device.type != "cuda":
        raise JobError(f"--device {name}: only cpu and cuda are supported")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise JobError(f"--device {name}: PyTorch sees {count} GPUs on this machine; use cpu")
    # All batches have one size: the fastest kernel for it is looked for once.
    torch.backends.cudnn.benchmark = True
    return Device(device, bfloat16=torch.cuda.is_bf16_supported())


def _cpu_multiplies_bfloat16() -> bool:
    # Everywhere else oneDNN emulates it: 14 times slower than fp32 on an AVX2 machine.
    # Private names: training runs in fp32 if a later PyTorch lacks them.
    return any(
        getattr(torch.cpu, name, bool)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory, where it would return each large tensor to the kernel.

    Page faults for every activation of every step took a fifth of the time.
    """
    set_malloc(mmap_max=0, trim_threshold=-1)
