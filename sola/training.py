"""The training loop, and what surrounds it: data, evaluation, checkpoints, pictures."""

import math
import time

import numpy as np
import torch
from torch import Tensor

from sola.checkpoint import open_run, run_identity, save, save_state
from sola.config import Config
from sola.dataset import ArrayFile, read_features
from sola.encode import encode_video
from sola.learner import STEP_FIGURES, Learner, make_learner, training_step, update_ratio
from sola.metrics import Record, append_record, evaluations, read_records
from sola.model import SoLaModule
from sola.plots import VideoPicture, draw_tsm_sheet
from sola.probe import probe_logistic_regression, probe_sgd
from sola.report import describe
from sola.run_data import RunData, open_data
from sola.runtime import (
    SolaError,
    from_first_rank,
    is_first_rank,
    join_ranks,
    progress,
    rank_count,
    resolve_device,
    sum_over_ranks,
)
from sola.synthetic import write_synthetic
from sola.tsm import loss_landmarks
from sola.windows import FileWindows, HeldWindows, epoch_windows, open_windows, rank_part

STEPS_PER_CHECK = 10  # the loss is looked at, and so waited for, once in so many steps
LONG_EPOCH = 20.0  # seconds; shorter ones are drawn at saving epochs only


class TrainingError(SolaError):
    """Training cannot go on; the message says at which epoch and step, and why."""


def train(config: Config, *, restart: bool = False) -> list[Record]:
    """Train as the configuration says, or continue an interrupted run; returns all records.

    Under torchrun all ranks train, and the first alone reads and writes everything but the
    training features. Raises SolaError for whatever the user can mend.
    """
    device = resolve_device(config.device)
    join_ranks(device)
    data = from_first_rank(lambda: find_data(config))
    state = from_first_rank(lambda: open_run(config, data.training.lengths, restart=restart))
    learner = make_learner(config, device)
    module = learner.model.module
    last_epoch = 0
    if state is not None:
        last_epoch = state["epoch"]
        learner.model.load_state_dict(state["model"])
        learner.optimiser.load_state_dict(state["optimiser"])
        print(f"{config.run_folder}: {last_epoch} of {config.epoch} epochs are done", flush=True)
    elif is_first_rank():
        draw(config, 0, module, data)
        save_run_state(config, 0, learner, data)
    if is_first_rank():
        evaluate(config, last_epoch, module, data)  # unless an earlier run has come so far
    if last_epoch < config.epoch:
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
    for epoch in range(last_epoch + 1, config.epoch + 1):
        record = train_epoch(config, epoch, learner, windows, data)
        if is_first_rank():
            append_record(config.metrics_file, record)
            print(describe(record, config), flush=True)
            if is_saving(config, epoch):
                weights = {n: w.cpu().contiguous() for n, w in module.state_dict().items()}
                save(config.model_file(epoch), weights)
                save_run_state(config, epoch, learner, data)
                evaluate(config, epoch, module, data)
    return from_first_rank(lambda: read_records(config.metrics_file))


def find_data(config: Config) -> RunData:
    """All that the run reads; the synthetic data set is written first when asked for."""
    if config.synthetic:
        write_synthetic(config.data_root, config.label_base, feature_dim=config.in_feature_dim)
    return open_data(config)


def save_run_state(config: Config, epoch: int, learner: Learner, data: RunData) -> None:
    """Save all that the same command needs to continue after this epoch."""
    state = {
        "epoch": epoch,
        "identity": run_identity(config, data.training.lengths),
        "model": learner.model.state_dict(),
        "optimiser": learner.optimiser.state_dict(),
    }
    save_state(config.run_folder, state)


def train_epoch(
    config: Config,
    epoch: int,
    learner: Learner,
    windows: FileWindows | HeldWindows,
    data: RunData,
) -> Record:
    """One window of every training video: the training steps, the epoch's picture and record."""
    started = time.perf_counter()
    lengths = [video.length for video in data.videos]
    chosen = epoch_windows(lengths, config.sampling_duration, seed=config.seed, epoch=epoch)
    firsts = range(0, len(lengths), config.batch_size)
    lasts = [min(first + config.batch_size, len(lengths)) for first in firsts]
    parts, shares = zip(*map(rank_part, firsts, lasts), strict=True)
    steps = len(parts)
    figures = torch.zeros(
        steps, len(STEP_FIGURES), dtype=torch.float64, device=learner.target.device
    )
    batches = windows.batches(chosen, parts)
    bar = progress(batches, total=steps, desc=f"epoch {epoch}/{config.epoch}", unit="step")
    for step, batch in enumerate(bar, start=1):
        figures[step - 1] = training_step(learner, batch, shares[step - 1])
        if step % STEPS_PER_CHECK == 1 or step % config.visualizing_step == 0 or step == steps:
            seen = sum_over_ranks(figures[:step])
            check_losses(seen[:, 0], config, epoch, data.videos, chosen[0])
            bar.set_postfix(loss=f"{seen[:, 0].mean().item():.4f}")
        elapsed = time.perf_counter() - started
        if is_first_rank() and is_drawn(config, epoch, step, steps, elapsed):
            draw(config, epoch, learner.model.module, data)
    loss, mean, square = seen.T.cpu()  # [steps] each
    sizes = torch.tensor(lasts) - torch.tensor(firsts)
    record = {
        "loss": _mean(loss, sizes),
        "cosine_mean": _mean(mean, sizes),
        "cosine_std": _mean((square - mean**2).clamp_min(0).sqrt(), sizes),
        "tanh_alpha": learner.model.module.alpha.tanh().item(),
        "update_ratio": update_ratio(learner, batch),
    }
    weights_are_finite = all(weights.isfinite().all() for weights in learner.model.parameters())
    if not weights_are_finite or not all(map(math.isfinite, record.values())):
        raise TrainingError(f"epoch {epoch}: {diverged(config)}")
    record |= {"windows": len(data.videos), "seconds": round(time.perf_counter() - started, 3)}
    return {"record": "epoch", "epoch": epoch} | record


def _mean(values: Tensor, weights: Tensor) -> float:
    return ((values * weights).sum() / weights.sum()).item()


def check_losses(
    losses: Tensor, config: Config, epoch: int, videos: list[ArrayFile], order: np.ndarray
) -> None:
    """Raise TrainingError for the first step whose loss is not finite, naming its videos."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        names = ", ".join(videos[i].path for i in batch[:5]) + (", ..." if len(batch) > 5 else "")
        raise TrainingError(
            f"epoch {epoch}, step {step + 1}: the loss is {losses[step].item()}; "
            f"{diverged(config)} (batch of {len(batch)} videos: {names})"
        )


def diverged(config: Config) -> str:
    """What to say of figures that are no longer finite."""
    return (
        "the weights have diverged, nothing was saved since the last checkpoint; --restart with a "
        f"lower learning_rate than {config.learning_rate}"
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


def evaluate(config: Config, epoch: int, module: SoLaModule, data: RunData) -> None:
    """Run the linear probe and record it, unless there are no labels or it is on record."""
    recorded = [record["epoch"] for record in evaluations(read_records(config.metrics_file))]
    if data.probe is None or epoch in recorded:
        return
    started = time.perf_counter()
    if config.eval_protocol == "sgd":
        scores = probe_sgd(
            module,
            *data.probe,
            eval_batch_size=config.eval_batch_size,
            eval_lr=config.eval_lr,
            eval_momentum=config.eval_momentum,
            eval_epoch=config.eval_epoch,
            epoch=epoch,
            seed=config.seed,
        )
    else:
        scores = probe_logistic_regression(
            module,
            *data.probe,
            eval_snippets=config.eval_snippets,
            eval_snippets_validation=config.eval_snippets_validation,
            seed=config.seed,
        )
    record = {"record": "evaluation", "epoch": epoch, "protocol": config.eval_protocol, **scores}
    record["seconds"] = round(time.perf_counter() - started, 3)
    append_record(config.metrics_file, record)
    print(f"eval_result in epoch{epoch}: {scores['accuracy']:.4f}", flush=True)
    if not scores.get("converged", True):
        print(
            "warning: the linear probe did not converge; its figures are a lower bound", flush=True
        )


def draw(config: Config, epoch: int, module: SoLaModule, data: RunData) -> None:
    """Draw the TSM sheet of an epoch."""
    pictures = []
    for name, array in data.drawn.items():
        features = read_features(array)
        encoded = encode_video(module, features)
        pictures.append(VideoPicture(name, features, encoded, data.drawn_labels.get(name)))
    title = f"Temporal self-similarity, {config.exp_name}, epoch {epoch}"
    draw_tsm_sheet(config.picture_folder / f"{config.exp_name}_epoch{epoch}.png", title, pictures)
