"""The training loop, and what surrounds it: data, evaluation, checkpoints, pictures."""

import contextlib
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sola.config import Config
from sola.data.features import FeatureFile
from sola.data.synthetic import write_synthetic
from sola.data.windows import FileWindows, HeldWindows, epoch_windows, open_windows, rank_part
from sola.method.matching import (
    Learner,
    learner_state,
    make_learner,
    restore,
    training_step,
    update_ratio,
    weights_are_finite,
)
from sola.method.tsm import loss_landmarks
from sola.method.weights import save
from sola.records import Record, append_record, read_records
from sola.system.cli import DeferredSignals, Interrupted, SolaError, progress, resolve_device
from sola.system.files import FolderLock
from sola.system.ranks import (
    any_rank,
    from_first_rank,
    is_first_rank,
    join_ranks,
    rank_count,
    sum_over_ranks,
)
from sola.training.draw_run import draw_curves, draw_tsms
from sola.training.evaluate import evaluate, say_health
from sola.training.inputs import RunData, open_data
from sola.training.messages import describe
from sola.training.resume import NO_SECONDS, STEP_FIGURES, open_run, run_identity, save_state

STEPS_PER_CHECK = 10  # the loss is looked at, and so waited for, once in so many steps
STATE_SECONDS = 300.0  # between two savings of the training state, at most
LONG_EPOCH = 20.0  # seconds; shorter ones are drawn at saving epochs only


class TrainingError(SolaError):
    """Training cannot go on; the message says at which epoch and step, and why."""


NO_FIGURES = torch.empty(0, len(STEP_FIGURES), dtype=torch.float64)


@dataclass
class Progress:
    """How far a run has come, and when that was last saved."""

    epoch: int = 0  # epochs that are complete
    figures: Tensor = NO_FIGURES  # of the steps done of the next one: float64 [steps, 3]
    seconds: dict[str, float] = field(default_factory=NO_SECONDS.copy)  # spent on these steps
    saved_at: float = field(default_factory=time.monotonic)


def train(config: Config, *, restart: bool = False) -> list[Record]:
    """Train as the configuration says, or continue an interrupted run; returns all records.

    Under torchrun all ranks train, and the first alone reads and writes everything but the
    training features. Raises SolaError for whatever the user can mend; Interrupted upon Ctrl-C or
    SIGTERM, with all that was learned saved.
    """
    device = resolve_device(config.device)
    join_ranks(device)
    data = from_first_rank(lambda: find_data(config))
    locks = [FolderLock(folder) for folder in (config.run_folder, config.picture_folder)]
    try:
        for lock in locks:
            from_first_rank(lock.acquire)
        state = from_first_rank(lambda: open_run(config, data.training.lengths, restart=restart))
        learner = make_learner(config, device)
        so_far = Progress()
        if state is not None:
            if len(state["figures"]) >= math.ceil(len(data.videos) / config.batch_size):
                raise TrainingError("the training state is of another run; --restart sets it aside")
            restore(learner, state)
            so_far = Progress(state["epoch"], state["figures"], state["seconds"])
            more = f", and {len(so_far.figures)} steps" if len(so_far.figures) else ""
            print(f"{config.run_folder}: {so_far.epoch} of {config.epoch} epochs are done{more}")
        elif is_first_rank():
            with timed(so_far.seconds, "seconds_drawing", "seconds"):
                draw_tsms(config, 0, learner, data)
            save_progress(config, learner, data, so_far)
        train_epochs(config, learner, data, so_far)
        return from_first_rank(lambda: read_records(config.metrics_file))
    finally:
        for lock in locks:
            lock.release()


def train_epochs(config: Config, learner: Learner, data: RunData, so_far: Progress) -> None:
    """Train until all epochs are done; record, save, probe and draw."""
    module, device = learner.model.module, learner.target.device
    records = from_first_rank(lambda: read_records(config.metrics_file))
    was_saved = so_far.epoch == 0 or config.model_file(so_far.epoch).exists()
    if is_first_rank() and was_saved and not len(so_far.figures):
        evaluate(config, so_far.epoch, module, data, records)  # unless it is on record
        with timed(so_far.seconds, "seconds_drawing", "seconds"):
            draw_curves(config, records)
    if so_far.epoch < config.epoch:
        with timed(so_far.seconds, "seconds_reading", "seconds"):
            windows = open_windows(
                data.videos,
                learner.times,
                storage=config.storage,
                storage_dtype=config.storage_dtype,
                batch_size=config.batch_size,
                num_workers=config.num_workers,
                device=device,
            )
        floor, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
        ranks = f" in {rank_count()} processes" if rank_count() > 1 else ""
        print(f"training on {device}{ranks}, {len(data.videos)} windows an epoch")
        print(f"loss: plateau {plateau:.4f} (best constant), floor {floor:.4f}", flush=True)
    with DeferredSignals() as signals:
        while so_far.epoch < config.epoch:
            record = train_epoch(config, learner, windows, data, so_far, signals)
            epoch = record["epoch"]
            so_far.epoch, so_far.figures, so_far.seconds = epoch, NO_FIGURES, NO_SECONDS.copy()
            if is_first_rank():
                append_record(config.metrics_file, record)
                records.append(record)
                print(describe(record, config), flush=True)
                say_health(config, records)
                if is_saving(config, epoch):
                    weights = {n: w.cpu().contiguous() for n, w in module.state_dict().items()}
                    save(config.model_file(epoch), weights)
            if is_saving(config, epoch) or any_rank(is_urgent(so_far, signals), device):
                save_progress(config, learner, data, so_far)
                stop_if_asked(signals, device, f"after epoch {epoch} of {config.epoch}")
            if is_first_rank() and is_saving(config, epoch):
                with signals.at_once():
                    evaluate(config, epoch, module, data, records)
            is_long = record["seconds"] - record["seconds_drawing"] >= LONG_EPOCH
            if is_first_rank() and (is_saving(config, epoch) or is_long):
                with timed(so_far.seconds, "seconds_drawing", "seconds"):
                    draw_curves(config, records)


def find_data(config: Config) -> RunData:
    """All that the run reads; the synthetic data set is written first when asked for."""
    if config.synthetic:
        write_synthetic(config.data_root, config.label_base, feature_dim=config.in_feature_dim)
    return open_data(config)


def save_progress(config: Config, learner: Learner, data: RunData, so_far: Progress) -> None:
    """Save all that the same command needs to go on from here, on the first rank."""
    if not weights_are_finite(learner):
        raise TrainingError(f"epoch {so_far.epoch + bool(len(so_far.figures))}: {diverged(config)}")
    if is_first_rank():
        state = {
            "epoch": so_far.epoch,
            "figures": so_far.figures,
            "seconds": so_far.seconds,
            "identity": run_identity(config, data.training.lengths),
            **learner_state(learner),
        }
        save_state(config.run_folder, state)
    so_far.saved_at = time.monotonic()


def is_urgent(so_far: Progress, signals: DeferredSignals) -> bool:
    """Whether the state is to be saved now, since it is time or the run is to end."""
    return signals.noted is not None or time.monotonic() - so_far.saved_at >= STATE_SECONDS


def stop_if_asked(signals: DeferredSignals, device: torch.device, where: str) -> None:
    """Raise Interrupted on all ranks when any of them was asked to end."""
    if any_rank(signals.noted is not None, device):
        raise Interrupted(
            signals.noted or signal.SIGTERM,
            f"stopped {where}; it is saved, and the same command goes on from there",
        )


def train_epoch(
    config: Config,
    learner: Learner,
    windows: FileWindows | HeldWindows,
    data: RunData,
    so_far: Progress,
    signals: DeferredSignals,
) -> Record:
    """What is left of the next epoch, one window of every training video: steps, picture, record.

    The state is saved between two steps when that is urgent.
    """
    epoch, done = so_far.epoch + 1, len(so_far.figures)
    seconds = so_far.seconds
    started = time.perf_counter() - seconds["seconds"]
    lengths = [video.length for video in data.videos]
    chosen = epoch_windows(lengths, config.sampling_duration, seed=config.seed, epoch=epoch)
    firsts = range(0, len(lengths), config.batch_size)
    lasts = [min(first + config.batch_size, len(lengths)) for first in firsts]
    parts, shares = zip(*map(rank_part, firsts, lasts), strict=True)
    steps, device = len(parts), learner.target.device
    figures = torch.zeros(steps, len(STEP_FIGURES), dtype=torch.float64, device=device)
    if is_first_rank():
        figures[:done] = so_far.figures.to(device)
    batches = waited_for(windows.batches(chosen, parts[done:]), seconds)
    about = f"epoch {epoch}/{config.epoch}"
    bar = progress(batches, initial=done, total=steps, desc=about, unit="step")
    for step, batch in enumerate(bar, start=done + 1):
        figures[step - 1] = training_step(learner, batch, shares[step - 1])
        urgent = is_urgent(so_far, signals)
        if is_looked_at(config, step, steps) or (urgent and rank_count() == 1):
            seen = sum_over_ranks(figures[:step])
            check_losses(seen[:, 0], config, epoch, data.videos, chosen[0])
            bar.set_postfix(loss=f"{seen[:, 0].mean().item():.4f}")
            seconds["seconds"] = time.perf_counter() - started
            elapsed = seconds["seconds"] - seconds["seconds_drawing"]
            if is_first_rank() and is_drawn(config, epoch, step, steps, elapsed):
                with timed(seconds, "seconds_drawing"):
                    draw_tsms(config, epoch, learner, data)
            if step < steps and any_rank(urgent, device):
                so_far.figures = seen.cpu()
                seconds["seconds"] = time.perf_counter() - started
                save_progress(config, learner, data, so_far)
                stop_if_asked(signals, device, f"in epoch {epoch} after step {step} of {steps}")
    loss, mean, square = seen.T.cpu()  # [steps] each
    sizes = torch.tensor(lasts) - torch.tensor(firsts)
    record = {
        "loss": _mean(loss, sizes),
        "cosine_mean": _mean(mean, sizes),
        "cosine_std": _mean((square - mean**2).clamp_min(0).sqrt(), sizes),
        "tanh_alpha": learner.model.module.alpha.tanh().item(),
        "update_ratio": update_ratio(learner, batch),
    }
    if not weights_are_finite(learner) or not all(map(math.isfinite, record.values())):
        raise TrainingError(f"epoch {epoch}: {diverged(config)}")
    floor, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
    record |= {"loss_floor": floor, "loss_plateau": plateau, "windows": len(data.videos)}
    seconds["seconds"] = time.perf_counter() - started
    record |= {name: round(value, 3) for name, value in seconds.items()}
    return {"record": "epoch", "epoch": epoch} | record | data.skipped


@contextlib.contextmanager
def timed(seconds: dict[str, float], *names: str) -> Iterator[None]:
    """Add the time that this takes to some of the seconds."""
    started = time.perf_counter()
    yield
    elapsed = time.perf_counter() - started
    for name in names:
        seconds[name] += elapsed


def waited_for(batches: Iterable[Tensor], seconds: dict[str, float]) -> Iterator[Tensor]:
    """The batches; the time until each is there is added to the seconds of reading."""
    batches = iter(batches)
    while True:
        with timed(seconds, "seconds_reading"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def is_looked_at(config: Config, step: int, steps: int) -> bool:
    """Whether the losses up to this step (from 1) are waited for, so that it may be drawn."""
    return step % STEPS_PER_CHECK == 1 or step % config.visualizing_step == 0 or step == steps


def _mean(values: Tensor, weights: Tensor) -> float:
    return ((values * weights).sum() / weights.sum()).item()


def check_losses(
    losses: Tensor, config: Config, epoch: int, videos: list[FeatureFile], order: np.ndarray
) -> None:
    """Raise TrainingError for the first step whose loss is not finite, naming its videos."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        names = " ".join(Path(videos[i].path).stem for i in batch)
        raise TrainingError(
            f"epoch {epoch}, step {step + 1}: the loss is {losses[step].item()}; "
            f"{diverged(config)} (batch of {len(batch)} videos: {names})"
        )


def diverged(config: Config) -> str:
    """What to say of figures that are no longer finite."""
    return (
        "the weights have diverged, what was saved before is as it was; --restart with a lower "
        f"learning_rate than {config.learning_rate}"
    )


def is_saving(config: Config, epoch: int) -> bool:
    """Whether an epoch ends with a checkpoint and a linear probe."""
    return epoch % config.saving_epoch == 0 or epoch == config.epoch


def is_drawn(config: Config, epoch: int, step: int, steps: int, elapsed: float) -> bool:
    """Whether to draw after this step (from 1): the last visualizing_step-th one of the epoch.

    An epoch too short for that is drawn at its end when it is a saving one; epochs expected to
    take under LONG_EPOCH seconds only when saving.
    """
    last_drawn = steps // config.visualizing_step * config.visualizing_step
    if is_saving(config, epoch):
        return step == (last_drawn or steps)
    return step == last_drawn and elapsed / step * steps >= LONG_EPOCH
