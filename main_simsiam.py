"""Train a SoLa module by similarity matching: python main_simsiam.py --yaml_path=YAML"""

import sys

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import argparse
from collections.abc import Sequence

from sola.config import Config, load_config
from sola.records import (
    Record,
    best_evaluation,
    best_head,
    comparable,
    head_evaluations,
    is_gain_of_head,
)
from sola.system.cli import ArgumentParser, command, run_script


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(
        "Train a SoLa module as a YAML says, or continue its interrupted run.",
        required=True,
        help="settings, e.g. yamls/demo.yaml",
    )
    parser.add_argument("--restart", action="store_true", help="set an earlier run aside first")
    options = parser.parse(arguments)
    config = load_config(options.yaml_path, options.settings)

    from sola.training.loop import train  # after the checks: torch takes seconds to import
    from sola.training.messages import summary

    records = train(config, restart=options.restart)
    print(summary(config, records))
    print(f"pictures: {config.picture_folder}/")
    print(*next_commands(options, config, records), sep="\n")


def next_commands(
    options: argparse.Namespace, config: Config, records: Sequence[Record]
) -> list[str]:
    """What to run now: what mends the training if something does, else what writes features."""
    from sola.training.health import has_gained, is_short, more_epochs, state_of

    def command_with(script: str, *arguments: str) -> str:
        changed = {argument.partition("=")[0] for argument in arguments}
        kept = [s for s in options.settings if s.partition("=")[0] not in changed]
        return command(script, f"--yaml_path={options.yaml_path}", *kept, *arguments)

    heads = head_evaluations(records) if config.eval_head else []
    scores = comparable(records, config.eval_protocol)
    best = best_head(heads) or best_evaluation(scores)
    load_model = f"--load_model={best['epoch'] if best else 'last'}"
    features = command_with("process_feature.py", load_model)
    state = state_of(records, config, has_ended=True)
    if state.remedy:
        script = "-m sola.prepare" if "--check" in state.remedy else "main_simsiam.py"
        return [
            f"next: {command_with(script, *state.remedy)}",
            f"to write features anyway: {features}",
        ]
    about = "for a head add --for=HEAD; for a baseline, untouched features: --load_model=0"
    if state.words or (heads and not is_gain_of_head(heads, best)):
        return [f"next: {features}", about]  # more of it is not better
    longer = command_with("main_simsiam.py", f"epoch={more_epochs(records, config)}")
    if best and not heads and not has_gained(scores):
        about = f"the probe has not gained beyond its error; {about}"
        goes_on = best is scores[-1] or is_short(records, config)
        further = [f"next: {longer}"] if goes_on else []
        return [*further, f"to write features anyway: {features}", about]
    return [f"next: {features}", about, f"more epochs: {longer}"]


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
