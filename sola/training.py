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
from sola.metrics import Record, append_record, evaluations, read_records
from sola.model import SimilarityMatching, SoLaModule
from sola.plots import VideoPicture, draw_tsm_sheet
from sola.probe import probe_logistic_regression, probe_sgd
from sola.report import describe
from sola.run_data import RunData, open_data
from sola.runtime import SolaError, progress, resolve_device, seed_everything
from sola.synthetic import write_synthetic
from sola.tsm import loss_landmarks, similarity_matching_loss, target_tsm
from sola.windows import epoch_windows, window_batches

STEPS_PER_CHECK = 10  # the loss is looked at, and so waited for, once in so many steps
LONG_EPOCH = 20.0  # seconds; shorter ones are drawn at saving epochs only
STEP_FIGURES = ("loss", "cosine_mean", "cosine_std")  # cosines off the diagonal


class TrainingError(SolaError):
    """Training cannot go on; the message says at which epoch and step, and why."""


def train(config: Config, *, restart: bool = False) -> list[Record]:
    """Train as the configuration says, or continue an interrupted run; returns all records.

    Raises SolaError for whatever the user can mend.
    """
    device = resolve_device(config.device)
    if config.synthetic:
        write_synthetic(config.data_root, config.label_base, feature_dim=config.in_feature_dim)
    data = open_data(config)
    state = open_run(config, data.training.lengths, restart=restart)
    seed_everything(config.seed)
    model = SimilarityMatching(config).to(device)
    optimiser = make_optimiser(model, config.learning_rate)
    target = target_tsm(config.tsm_size, config.oracle_coef).to(device)
    if state is None:
        last_epoch = 0
        draw(config, 0, model.module, data)
        save_run_state(config, 0, model, optimiser, data)
    else:
        last_epoch = state["epoch"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        print(f"{config.run_folder}: {last_epoch} of {config.epoch} epochs are done", flush=True)
    evaluate(config, last_epoch, model.module, data)  # unless an earlier run has come so far
    if last_epoch < config.epoch:
        floor, plateau = loss_landmarks(config.tsm_size, config.oracle_coef, config.use_dissim_head)
        print(f"training on {device}, {len(data.videos)} windows an epoch")
        print(f"loss: plateau {plateau:.4f} (best constant), floor {floor:.4f}", flush=True)
    for epoch in range(last_epoch + 1, config.epoch + 1):
        record = train_epoch(config, epoch, model, optimiser, target, data)
        append_record(config.metrics_file, record)
        print(describe(record, config), flush=True)
        if is_saving(config, epoch):
            weights = {name: value.cpu() for name, value in model.module.state_dict().items()}
            save(config.model_file(epoch), weights)
            save_run_state(config, epoch, model, optimiser, data)
            evaluate(config, epoch, model.module, data)
    return read_records(config.metrics_file)


def make_optimiser(model: SimilarityMatching, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW over module, projector and predictor, as in the original."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)


def save_run_state(
    config: Config,
    epoch: int,
    model: SimilarityMatching,
    optimiser: torch.optim.Optimizer,
    data: RunData,
) -> None:
    """Save all that the same command needs to continue after this epoch."""
    state = {
        "epoch": epoch,
        "identity": run_identity(config, data.training.lengths),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    save_state(config.run_folder, state)


def train_epoch(
    config: Config,
    epoch: int,
    model: SimilarityMatching,
    optimiser: torch.optim.Optimizer,
    target: Tensor,
    data: RunData,
) -> Record:
    """One window of every training video: the training steps, the epoch's picture and record."""
    started = time.perf_counter()
    lengths = [video.length for video in data.videos]
    windows = epoch_windows(lengths, config.sampling_duration, seed=config.seed, epoch=epoch)
    batches = window_batches(
        data.videos,
        windows,
        sampling_duration=config.sampling_duration,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )
    steps = -(-len(data.videos) // config.batch_size)
    figures = torch.zeros(steps, len(STEP_FIGURES), device=target.device)
    bar = progress(batches, total=steps, desc=f"epoch {epoch}/{config.epoch}", unit="step")
    for step, batch in enumerate(bar):
        batch = batch.to(target.device)
        cosines = model(batch)
        loss = similarity_matching_loss(cosines, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

        figures[step] = step_figures(loss, cosines)
        done, elapsed = step + 1, time.perf_counter() - started
        is_drawn_now = is_drawn(config, epoch, done, steps, elapsed)
        if step % STEPS_PER_CHECK == 0 or done == steps or is_drawn_now:
            check_losses(figures[:done, 0], config, epoch, data.videos, windows[0])
            bar.set_postfix(loss=f"{figures[:done, 0].mean().item():.4f}")
        if is_drawn_now:
            draw(config, epoch, model.module, data)
    batch_sizes = torch.full((steps,), config.batch_size, device=target.device)
    batch_sizes[-1] = len(batch)
    means = (figures * batch_sizes[:, None]).sum(dim=0) / batch_sizes.sum()
    record = dict(zip(STEP_FIGURES, means.tolist(), strict=True))
    record["tanh_alpha"] = model.module.alpha.tanh().item()
    record["update_ratio"] = update_ratio(model, batch)
    weights_are_finite = all(parameter.isfinite().all() for parameter in model.parameters())
    if not weights_are_finite or not all(map(math.isfinite, record.values())):
        raise TrainingError(f"epoch {epoch}: {diverged(config)}")
    record |= {"windows": len(data.videos), "seconds": round(time.perf_counter() - started, 3)}
    return {"record": "epoch", "epoch": epoch} | record


def step_figures(loss: Tensor, cosines: Tensor) -> Tensor:
    """What is recorded of a step, in the order of STEP_FIGURES, without waiting for the device."""
    size = cosines.shape[-1]
    # all but the diagonal, as a view: without its last entry, the diagonal is a first column
    others = cosines.detach().flatten(1)[:, :-1].unflatten(1, (size - 1, size + 1))[:, :, 1:]
    return torch.stack([loss.detach(), others.mean(), others.std(correction=0)])


@torch.no_grad()
def update_ratio(model: SimilarityMatching, windows: Tensor) -> float:
    """Size of the module's update against its input: |y - x| / |x| over a batch of windows."""
    x = windows[:, model.positions]
    update = model.module(windows, positions=model.positions) - x
    return (update.norm() / x.norm().clamp_min(1e-12)).item()


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
