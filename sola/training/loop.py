"""The training loop: read train_epochs from top to bottom."""

import contextlib
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sola.config import Config, reach_note
from sola.data.windows import FileWindows, HeldWindows, open_windows, plan_epoch
from sola.errors import TrainingError
from sola.method.matching import (
    Learner,
    epoch_scalars,
    landmarks,
    make_learner,
    training_step,
    update_ratio,
)
from sola.method.weights import save
from sola.records import Record, append_record
from sola.system.cli import progress, say
from sola.system.device import resolve_device
from sola.system.files import only_user_of
from sola.system.ranks import any_rank, from_first_rank, is_first_rank, join_ranks, rank_count
from sola.system.signals import DeferredSignals, Interrupted
from sola.training.draw_run import LONG_EPOCH, draw_best, draw_curves, draw_tsms, is_drawn
from sola.training.evaluate import evaluate
from sola.training.health import news
from sola.training.inputs import Inputs, open_inputs
from sola.training.messages import describe, expected_end
from sola.training.resume import Clock, TrainingState, open_run, restore, run_identity, save_state
from sola.training.steps import check_finite, check_losses, joined

STEPS_PER_CHECK = 10  # the loss is looked at, and so waited for, once in so many steps
STEPS_TIMED = 10  # by which the end is foretold: one alone varies, and a user wants to know soon
STATE_SECONDS = 300.0  # between two savings of the training state, at most


@dataclass
class Run:
    """A run under way. records: as in metrics.jsonl. saved_at: when its state was last saved."""

    config: Config
    inputs: Inputs
    learner: Learner
    records: list[Record]
    clock: Clock
    saved_at: float = field(default_factory=time.monotonic)
    first_look: tuple[int, float] | None = None  # at a loss: steps left, seconds of all epochs


def train(config: Config, *, restart: bool = False) -> list[Record]:
    """Train as the configuration says, or continue an interrupted run; returns all records.

    Under torchrun all ranks train, and the first alone reads and writes everything but the
    training features. Raises SolaError for whatever the user can mend; Interrupted upon Ctrl-C or
    SIGTERM, with all that was learned saved.
    """
    device = resolve_device(config.device)
    join_ranks(device)
    inputs = from_first_rank(lambda: open_inputs(config))
    with contextlib.ExitStack() as stack:
        from_first_rank(lambda: stack.enter_context(only_user_of(config.run_folder)))
        lengths = inputs.training.lengths
        state, records = from_first_rank(lambda: open_run(config, lengths, restart=restart))
        learner = make_learner(config, device)
        run = Run(config, inputs, learner, records, Clock(state.seconds if state else {}))
        if state is None:
            state = TrainingState()
            draw_if_due(run, 0)
            save_progress(run, 0)
        else:
            if state.steps >= math.ceil(len(inputs.videos) / config.batch_size):
                raise TrainingError("the training state is of another run; --restart sets it aside")
            restore(learner, state, config.run_folder)
            steps = f", and {state.steps} steps" if state.steps else ""
            print(f"{config.run_folder}: {state.epoch} of {config.epoch} epochs are done{steps}")
        if is_first_rank() and not state.steps:
            if 0 < state.epoch == config.epoch:  # which may have been saved by time alone
                save_weights(run, state.epoch)
            if state.epoch == 0 or config.model_file(state.epoch).exists():
                probe_and_draw_curves(run, state.epoch)
        if state.epoch < config.epoch:
            train_epochs(run, state)
        if is_first_rank():
            draw_best(config, run.records, inputs)
        return from_first_rank(lambda: run.records)


def train_epochs(run: Run, before: TrainingState) -> None:
    """Train the epochs that are left, an epoch being one window of every video."""
    config, learner, videos = run.config, run.learner, run.inputs.videos
    windows = open_store(run)
    done = before.steps  # of the first epoch
    with DeferredSignals() as signals:
        for epoch in range(before.epoch + 1, config.epoch + 1):
            plan = plan_epoch(config, [video.length for video in videos], epoch)
            steps = len(plan.parts)
            seen, unseen = before.scalars if done else {}, []  # scalars of the steps
            batches = waited_for(windows.batches(plan.windows, plan.parts[done:]), run.clock)
            about = f"epoch {epoch}/{config.epoch}"
            bar = progress(batches, initial=done, total=steps, desc=about, unit="step")

            for step, windows_of_step in enumerate(bar, start=done + 1):
                unseen.append(training_step(learner, windows_of_step, plan.shares[step - 1]))
                is_due = is_saving_due(run, signals)
                if is_looked_at(step, steps) or (is_due and rank_count() == 1):
                    seen, unseen = joined(seen, unseen), []
                    check_losses(seen["loss"], config, epoch, videos, plan)
                    bar.clear()
                    foretell_end(run, (config.epoch - epoch + 1) * steps - step)
                    bar.set_postfix(loss=f"{seen['loss'].mean().item():.4f}")
                    if step < steps and any_rank(is_due, learner.device):
                        save_progress(run, epoch - 1, step, seen)
                        where = f"in epoch {epoch} after step {step} of {steps}"
                        stop_if_asked(signals, learner.device, where)

            done = 0
            draw_if_due(run, epoch)
            ratio = update_ratio(learner, windows_of_step)
            figures = epoch_scalars(seen, plan.sizes) | {"update_ratio": ratio, "steps": steps}
            add_record(run, epoch, figures)
            if is_saving(config, epoch) and is_first_rank():
                save_weights(run, epoch)
            if is_saving(config, epoch) or any_rank(is_saving_due(run, signals), learner.device):
                save_progress(run, epoch)
                stop_if_asked(signals, learner.device, f"after epoch {epoch} of {config.epoch}")
            if is_saving(config, epoch) and is_first_rank():
                with signals.at_once():
                    probe_and_draw_curves(run, epoch)


def open_store(run: Run) -> FileWindows | HeldWindows:
    """Where the training windows come from; says what the training is like."""
    config, device = run.config, run.learner.device
    with run.clock.timed("reading"):
        windows = open_windows(config, run.inputs.videos, device)
    floor, plateau = landmarks(config)
    ranks = f" in {rank_count()} processes" if rank_count() > 1 else ""
    print(f"training on {device}{ranks}, {len(run.inputs.videos)} windows an epoch")
    print(f"loss: plateau {plateau:.4f} (best constant), floor {floor:.4f}")
    for line in reach_note(config):
        print(line)
    return windows


def waited_for(batches: Iterable[Tensor], clock: Clock) -> Iterator[Tensor]:
    """The batches; the time until each is there counts as reading."""
    batches = iter(batches)
    while True:
        with clock.timed("reading"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def is_looked_at(step: int, steps: int) -> bool:
    """Whether the losses up to this step (from 1) are waited for."""
    return step % STEPS_PER_CHECK == 1 or step == steps


def foretell_end(run: Run, left: int) -> None:
    """Say once how long the steps that are left will take, by those after the slow first one."""
    laps = sum(record["seconds"] for record in run.records if record["record"] == "epoch")
    seconds = laps + run.clock.seconds["seconds"]
    run.first_look = run.first_look or (left, seconds)
    steps = run.first_look[0] - left
    if steps >= STEPS_TIMED and is_first_rank():
        for line in expected_end(steps, seconds - run.first_look[1], left):
            say(line)
        run.first_look = 0, 0.0  # from where no steps are counted


def is_saving(config: Config, epoch: int) -> bool:
    """Whether an epoch ends with a checkpoint and a linear probe."""
    return epoch % config.saving_epoch == 0 or epoch == config.epoch


def is_saving_due(run: Run, signals: DeferredSignals) -> bool:
    """Whether the state is to be saved now, since it is time or the run is to end."""
    return signals.noted is not None or time.monotonic() - run.saved_at >= STATE_SECONDS


def draw_if_due(run: Run, epoch: int) -> None:
    """Draw the TSMs at the end of an epoch, on the first rank, where that is wanted."""
    if is_first_rank() and is_drawn(run.config, epoch):
        with run.clock.timed("drawing"):
            draw_tsms(run.config, epoch, run.learner, run.inputs)


def add_record(run: Run, epoch: int, figures: dict[str, float]) -> None:
    """Put the epoch on record and say what it shows. Raises TrainingError for odd figures."""
    config = run.config
    figures["tanh_alpha"] = run.learner.model.module.alpha.tanh().item()
    check_finite(run.learner, config, epoch, figures.values())
    floor, plateau = landmarks(config)
    record = {"record": "epoch", "epoch": epoch} | figures
    record |= {"loss_floor": floor, "loss_plateau": plateau, "windows": len(run.inputs.videos)}
    record |= run.clock.lap() | run.inputs.skipped
    if is_first_rank():
        append_record(config.metrics_file, record)
        run.records.append(record)
        for line in (describe(run.records, config), *news(run.records, config)):
            say(line)
        is_long = record["seconds"] - record["seconds_drawing"] >= LONG_EPOCH
        if is_long and not is_saving(config, epoch):
            with run.clock.timed("drawing"):
                draw_curves(config, run.records)


def save_progress(
    run: Run, epoch: int, steps: int = 0, scalars: dict[str, Tensor] | None = None
) -> None:
    """Save all that the same command needs to go on from here, on the first rank.

    epoch: epochs that are complete. steps: done of the next one, with their scalars.
    """
    check_finite(run.learner, run.config, epoch + (steps > 0))
    if is_first_rank():
        state = TrainingState(
            epoch=epoch,
            steps=steps,
            scalars=scalars or {},
            seconds=run.clock.seconds,
            identity=run_identity(run.config, run.inputs.training.lengths),
            model=run.learner.model.state_dict(),
            optimiser=run.learner.optimiser.state_dict()["state"],
        )
        save_state(run.config.run_folder, state)
    run.saved_at = time.monotonic()


def save_weights(run: Run, epoch: int) -> None:
    """Save the module's checkpoint, unless it is there."""
    path, weights = run.config.model_file(epoch), run.learner.model.module.state_dict()
    if not path.exists():
        save(path, {name: value.cpu().contiguous() for name, value in weights.items()})


def stop_if_asked(signals: DeferredSignals, device: torch.device, where: str) -> None:
    """Raise Interrupted on all ranks when any of them was asked to end."""
    if any_rank(signals.noted is not None, device):
        raise Interrupted(
            signals.noted or signal.SIGTERM,
            f"stopped {where}; it is saved, and the same command goes on from there",
        )


def probe_and_draw_curves(run: Run, epoch: int) -> None:
    """What ends an epoch that is saved, and begins a run."""
    with run.clock.stopped():
        evaluate(run.config, epoch, run.learner.model.module, run.inputs, run.records)
    if is_drawn(run.config, epoch):
        with run.clock.timed("drawing"):
            draw_curves(run.config, run.records)
