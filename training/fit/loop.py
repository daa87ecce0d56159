"""The training loop: from images and a recipe to trained weights, resumable at every epoch."""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.images import Split
from training.errors import JobError
from training.fit import augment, checkpoint
from training.fit.checkpoint import Checkpoint, Epoch
from training.fit.device import Device
from training.fit.evaluate import evaluate
from training.fit.hard_examples import HardExampleSelector
from training.fit.normalise import Normalise, at_once
from training.fit.optim import make_optimizers, schedule, take_step
from training.fit.process_group import SINGLE_PROCESS, ProcessGroup
from training.fit.recipe import Recipe
from training.fit.teacher import KeptAnswers, distillation_loss
from training.networks.backbone import MEAN, STD

_SELECTOR = "judge"  # the name of its tensors in checkpoints, since the first of them
# Values with which a feature of the recipe is off; older checkpoints lack these names.
_UNUSED = {
    "cutmix": 0,
    "trained_share": 1,
    "teacher_share": 0,
    "teacher_copies": 0,
    "balanced": False,
    "head_epochs": 0,
}


@dataclass(frozen=True)
class Fitted:
    """The outcome of a run: the network to publish in eval mode, its normalisation, its past."""

    network: nn.Module
    normalise: Normalise
    history: list[Epoch]
    devices: list[str]


@dataclass
class _EpochProgress:
    """State of an epoch in progress: sums over its batches, and the random generators."""

    batches: int
    loss: Tensor
    hits: Tensor
    generator: Tensor
    torch: Tensor

    @classmethod
    def start(cls, device: Device) -> "_EpochProgress":
        zero = torch.zeros((), device=device.torch)
        return cls(0, zero, zero.clone(), torch.empty(0), torch.empty(0))


@dataclass
class _Run:
    """Everything that changes while training, and so everything that a checkpoint holds."""

    network: nn.Module
    average: nn.Module | None
    optimizers: list[torch.optim.Optimizer]
    selector: HardExampleSelector | None
    teacher: nn.Module | None
    answers: KeptAnswers | None
    history: list[Epoch] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    within: _EpochProgress | None = None

    def all_optimizers(self) -> list[torch.optim.Optimizer]:
        return self.optimizers + (self.selector.optimizers if self.selector is not None else [])


def fit(
    network: nn.Module,
    train: Split,
    validation: Split,
    recipe: Recipe,
    *,
    seed: int,
    device: Device,
    teacher: nn.Module | None = None,
    folder: Path | None = None,
    identity: dict[str, Any] | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_batch: Callable[[int, int], None] = lambda *_: None,
    keep_seconds: float = 600.0,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Fitted:
    """Train ``network``, as it is passed, by ``recipe``.

    All randomness of an epoch comes from (seed, epoch), so that a resumed run does the same steps
    as one that was not interrupted. Checkpoints go to ``folder`` after each epoch, and every
    ``keep_seconds`` within one; None keeps nothing. A checkpoint is resumed only if ``identity``,
    recipe and seed are the same. ``teacher`` takes the same normalised images as ``network``; see
    ``training.fit.teacher``. With a ``group`` every process calls this with the same arguments; the
    first one keeps the checkpoints, which all of them must be able to read.

    Raises JobError if the loss is no longer finite, or the checkpoint is of another run.
    """
    identity = json.loads(json.dumps((identity or {}) | asdict(recipe) | {"seed": seed}))
    for name, unused in _UNUSED.items():
        if identity[name] == unused:
            del identity[name]  # older checkpoints have none
    if (recipe.teacher_share > 0) != (teacher is not None):
        raise JobError("a teacher and a teacher_share above 0 go together; give both or neither")
    if recipe.teacher_copies and (teacher is None or recipe.trained_share < 1):
        raise JobError(
            "teacher_copies needs a teacher and trained_share=1: kept answers are of all images"
        )
    train, validation = train.to(device.torch), validation.to(device.torch)
    if hasattr(network, "train_head_only"):  # pretrained on ImageNet's pictures
        normalise = Normalise(torch.tensor(MEAN), torch.tensor(STD)).to(device.torch)
    else:
        normalise = Normalise.of(train.images).to(device.torch)
    network = network.to(device.torch).to(memory_format=torch.channels_last)
    first = normalise(train.images[: at_once(5 * recipe.batch, train.images)])
    network.prepare(first)  # type: ignore[operator]
    classes = int(train.labels.max()) + 1
    run = _Run(
        network,
        copy.deepcopy(network).requires_grad_(False) if recipe.average else None,
        make_optimizers(network, recipe),
        HardExampleSelector(first, classes, recipe, device) if recipe.trained_share < 1 else None,
        teacher.to(device.torch).to(memory_format=torch.channels_last) if teacher else None,
        KeptAnswers(folder, identity, f"{group.rank} of {group.size}")
        if recipe.teacher_copies
        else None,
    )
    saved = checkpoint.load(folder, identity) if folder is not None else None
    if saved is not None:
        _restore(run, saved)
    done = run.within.batches if run.within is not None else 0
    _require_same(group, identity, len(run.history), done)
    group.take_from_first(run.network.state_dict().values())
    published = run.average or run.network
    mirrored_first = torch.rand(len(train), generator=_generator(seed, -1)) < 0.5
    mirrored_first = mirrored_first.to(device.torch)
    kept = time.monotonic()

    def keep(*, finished: bool = False) -> None:
        nonlocal kept
        if folder is not None and group.leads:
            batches = run.within.batches if run.within is not None else 0
            checkpoint.save(
                folder,
                Checkpoint(
                    _tensors(run, finished=finished), run.history, identity, run.devices, batches
                ),
            )
        kept = time.monotonic()

    def keep_now_and_then() -> None:
        if time.monotonic() - kept > keep_seconds:
            keep()

    for epoch in range(len(run.history), recipe.epochs):
        started = time.monotonic()
        loss, top1 = _train_epoch(
            run,
            train,
            normalise,
            recipe,
            epoch,
            seed,
            device,
            mirrored_first,
            on_batch,
            keep_now_and_then,
            group,
        )
        judged = predictor(published, normalise, device)
        found_loss, found_top1, found_top5 = _scores(judged, validation, device, group)
        seconds = time.monotonic() - started
        row = Epoch(epoch + 1, loss, found_loss, found_top1, found_top5, seconds, top1)
        run.history.append(row)
        computed = _computed_on(device, group)
        if computed not in run.devices:
            run.devices.append(computed)
        keep(finished=epoch + 1 == recipe.epochs)
        on_epoch(row)
    return Fitted(published.eval(), normalise, run.history, run.devices)


def _computed_on(device: Device, group: ProcessGroup) -> str:
    """In words, with PyTorch's version: another may resume the run, or publish it."""
    text = f"{device}, PyTorch {torch.__version__.partition('+')[0]}"
    return text if group.size == 1 else f"{group.size} × {text}"


def _require_same(group: ProcessGroup, identity: dict[str, Any], epochs: int, batches: int) -> None:
    """Raise JobError unless all processes train the same run, from the same place."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
    group.require_same(
        "what they train: start all with the same options and the same images",
        int.from_bytes(digest[:7]),
    )
    group.require_same(
        "what they resume: --runs should be a folder that all can read", epochs, batches
    )


def _scores(
    logits: Callable[[Tensor], Tensor], images: Split, device: Device, group: ProcessGroup
) -> list[float]:
    """Loss, top-1 and top-5 on ``images``, which the first process finds for all."""
    scores = torch.zeros(3, dtype=torch.float64, device=device.torch)
    if group.leads:
        found = evaluate(logits, images.images, images.labels)
        values = [found.loss, found.top1, found.top5]
        scores += torch.tensor(values, dtype=torch.float64, device=device.torch)
    group.take_from_first([scores])
    return scores.tolist()


def predictor(
    network: nn.Module, normalise: Normalise, device: Device
) -> Callable[[Tensor], Tensor]:
    """Pixels uint8 [n, 3, h, w] to logits float32 [n, classes], in eval mode without gradients."""
    network.eval()

    def logits(pixels: Tensor) -> Tensor:
        images = normalise(pixels.to(device.torch)).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), device.precision():
            outputs: Tensor = network(images)
        return outputs.float()

    return logits


def _train_epoch(
    run: _Run,
    train: Split,
    normalise: Normalise,
    recipe: Recipe,
    epoch: int,
    seed: int,
    device: Device,
    mirrored_first: Tensor,
    on_batch: Callable[[int, int], None],
    keep: Callable[[], None],
    group: ProcessGroup,
) -> tuple[float, float]:
    """One pass over the training images, or the rest of it.

    Returns the mean loss and the top-1 of the batches, as they were trained on.
    """
    # Dropout draws from the global generator: in each process other units.
    torch.manual_seed(seed * 1_000_003 + epoch + group.rank * 1_000_000_007)
    # Epochs of one number have the same batches, cropped and mixed alike.
    copy = epoch % recipe.teacher_copies if recipe.teacher_copies else epoch
    generator = _generator(seed, copy)
    looked_at = round(recipe.batch / recipe.trained_share)
    steps = max(1, len(train) // looked_at)
    _set_trained(run.network, recipe, epoch)
    order = _order(train.labels, generator, balanced=recipe.balanced)
    begun = _begin_or_resume(run, device, generator, group)
    for index, rows in enumerate(_batches(order, looked_at)):
        if index < begun.batches:
            continue
        step = epoch * steps + index
        lr_factor = schedule(step, recipe.epochs * steps, recipe.warmup)
        chosen = rows.to(device.torch, non_blocking=True)
        images, labels = normalise(train.images[chosen]), train.labels[chosen]
        images = _augmented(images, mirrored_first[chosen], copy, recipe, generator)
        if run.selector is not None:
            hardest = run.selector.hardest(images, labels, step, lr_factor)
            group.take_from_first([hardest])
            images, labels = images[hardest], labels[hardest]
        images, others, theirs = _mixed(images, labels, recipe, generator)
        total = len(images)
        images, labels, theirs = (group.share(rows) for rows in (images, labels, theirs))
        part = len(images) / total
        images = images.contiguous(memory_format=torch.channels_last)
        with device.precision():
            logits = run.network(images).float()
        answers = _answers(run, images, device, copy, index, steps)
        loss = _loss(logits, labels, recipe, others, theirs, answers) * part
        loss.backward()
        hits = (logits.detach().argmax(1) == labels).float().mean() * part
        mean_loss = loss.detach().clone()
        group.add_up_gradients(run.network, mean_loss, hits)
        take_step(run.optimizers, lr_factor)
        if run.average is not None:
            _average(run.average, run.network, recipe.average, step)
        begun.batches = index + 1
        begun.loss += mean_loss
        begun.hits += hits
        begun.generator, begun.torch = generator.get_state(), torch.get_rng_state()
        on_batch(index + 1, steps)
        if index + 1 < steps:
            keep()
    run.within = None
    mean = float(begun.loss / steps)
    if not mean < float("inf"):
        raise JobError(
            f"epoch {epoch + 1}: the loss is {mean}; the learning rate {recipe.lr:g} "
            "may be too high"
        )
    return mean, float(begun.hits / steps)


def _begin_or_resume(
    run: _Run, device: Device, generator: torch.Generator, group: ProcessGroup
) -> _EpochProgress:
    """Where the epoch stands; the random numbers go on where an interrupted one left them."""
    begun = run.within or _EpochProgress.start(device)
    run.within = begun
    if begun.batches:
        generator.set_state(begun.generator)
        if group.leads:
            torch.set_rng_state(begun.torch)
    return begun


def _set_trained(network: nn.Module, recipe: Recipe, epoch: int) -> None:
    """Training mode, and which parameters are trained in this epoch."""
    network.train()
    if epoch >= recipe.whitening_bias_epochs and hasattr(network, "whitening"):
        network.whitening.bias.requires_grad_(False)  # type: ignore[union-attr]
    if recipe.head_epochs and hasattr(network, "train_head_only"):
        network.train_head_only(epoch < recipe.head_epochs)  # type: ignore[operator]


def _augmented(
    images: Tensor, mirrored_first: Tensor, epoch: int, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    if recipe.flip:
        images = augment.alternating_flip(images, mirrored_first, epoch)
    if recipe.translate:
        images = augment.translate(images, recipe.translate, generator)
    if recipe.cutout:
        images = augment.cutout(images, recipe.cutout, generator)
    return images


def _mixed(
    images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, float, Tensor]:
    """Images, the share of each that is of another image, and the labels of those."""
    if recipe.cutmix and float(torch.rand((), generator=generator)) < recipe.cutmix:
        return *augment.cutmix(images, generator), labels.roll(1)
    return images, 0.0, labels


def _loss(
    logits: Tensor,
    labels: Tensor,
    recipe: Recipe,
    others: float,
    theirs: Tensor,
    answers: Tensor | None,
) -> Tensor:
    """The batch's loss; a share of ``others`` of each image is of one labelled ``theirs``.

    ``answers`` are the teacher's logits.
    """
    smoothing = recipe.label_smoothing
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if others:
        other = functional.cross_entropy(logits, theirs, label_smoothing=smoothing)
        loss = (1 - others) * loss + others * other
    if answers is None:
        return loss
    share = recipe.teacher_share
    return (1 - share) * loss + share * distillation_loss(logits, answers)


def _answers(
    run: _Run, images: Tensor, device: Device, copy: int, batch: int, batches: int
) -> Tensor | None:
    """The teacher's logits of a batch, float32 [n, classes]: those kept, where there are any."""
    if run.teacher is None:
        return None
    kept = run.answers.get(copy, batch) if run.answers is not None else None
    if kept is not None:
        return kept.to(images.device, non_blocking=True)
    with torch.no_grad(), device.precision():
        answers: Tensor = run.teacher(images).float()
    if run.answers is not None:
        run.answers.put(copy, batch, answers, batches)
    return answers


def _order(labels: Tensor, generator: torch.Generator, *, balanced: bool) -> Tensor:
    """Shuffled indices of an epoch; balanced: drawn so that each class comes equally often."""
    if not balanced:
        return torch.randperm(len(labels), generator=generator)
    counts = torch.bincount(labels.cpu()).double()
    weights = (1 / counts)[labels.cpu()]
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator)


def _batches(order: Tensor, batch: int) -> Iterator[Tensor]:
    """The indices in full batches; fewer than one batch make one batch."""
    for start in range(0, max(len(order) - batch, 0) + 1, batch):
        yield order[start : start + batch]


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    # Early on the average would be mostly the untrained weights: use a faster decay then.
    weight = 1 - min(decay, (1 + step) / (10 + step))
    source = network.state_dict()
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(source[name], weight)
        else:
            tensor.copy_(source[name])


def _tensors(run: _Run, *, finished: bool) -> dict[str, Tensor]:
    """What resuming needs; for a finished run, only what is published."""
    if finished:
        parts = {"published": (run.average or run.network).state_dict()}
    else:
        parts = {"network": run.network.state_dict()}
        if run.average is not None:
            parts["average"] = run.average.state_dict()
        if run.selector is not None:
            parts[_SELECTOR] = run.selector.network.state_dict()
        for number, optimizer in enumerate(run.all_optimizers()):
            for index, state in optimizer.state_dict()["state"].items():
                parts[f"optimizer.{number}.{index}"] = state
        if run.within is not None:
            names = ("loss", "hits", "generator", "torch")
            parts["within"] = {name: getattr(run.within, name) for name in names}
    return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}


def _restore(run: _Run, saved: Checkpoint) -> None:
    run.history[:] = saved.history
    run.devices[:] = saved.devices
    published = saved.part("published")
    if published:
        (run.average or run.network).load_state_dict(published)
        return
    run.network.load_state_dict(saved.part("network"))
    within = saved.part("within")
    if saved.batches and within:
        device = next(run.network.parameters()).device  # the generators' states stay on the CPU
        within |= {name: within[name].to(device) for name in ("loss", "hits")}
        run.within = _EpochProgress(saved.batches, **within)
    if run.average is not None:
        run.average.load_state_dict(saved.part("average"))
    if run.selector is not None:
        run.selector.network.load_state_dict(saved.part(_SELECTOR))
    for number, optimizer in enumerate(run.all_optimizers()):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in saved.part(f"optimizer.{number}").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
