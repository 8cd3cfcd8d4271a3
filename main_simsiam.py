"""Train a SoLa module by similarity matching: python main_simsiam.py --yaml_path=YAML"""

import sys

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import shlex

from sola.config import load_config
from sola.system.cli import ArgumentParser, run_script


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(
        "Train a SoLa module as a YAML says, or continue its interrupted run.",
        required=True,
        help="settings, e.g. yamls/demo.yaml",
    )
    parser.add_argument("--restart", action="store_true", help="set an earlier run aside first")
    options = parser.parse(arguments)
    config = load_config(options.yaml_path, options.settings)

    from sola.records import best_evaluation, comparable
    from sola.training.loop import train  # after the checks: torch takes seconds to import
    from sola.training.messages import summary

    records = train(config, restart=options.restart)
    print(summary(config, records))
    best = best_evaluation(comparable(records, config.eval_protocol))
    command = [
        "python process_feature.py",
        shlex.quote(f"--yaml_path={options.yaml_path}"),
        f"--load_model={best['epoch'] if best else 'last'}",
        *map(shlex.quote, options.overrides),
    ]
    print(f"pictures: {config.picture_folder}/")
    print("next:", " ".join(command))
    print("for a baseline, untouched features by the same route: --load_model=0")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
