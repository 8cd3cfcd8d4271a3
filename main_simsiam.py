"""Train a SoLa module by similarity matching: python main_simsiam.py --yaml_path=YAML"""

import shlex
import sys

from sola.config import load_config
from sola.runtime import ArgumentParser, run_script


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(
        description="Train a SoLa module as a YAML says, or continue its interrupted run.",
        allow_abbrev=False,
    )
    parser.add_argument("--yaml_path", required=True, help="settings, e.g. yamls/demo.yaml")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N; wins over the YAML's device")
    parser.add_argument(
        "--restart", action="store_true", help="set an earlier run aside, begin anew"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="win over the YAML")
    options = parser.parse_intermixed_args(arguments)
    overrides = list(options.overrides)
    if options.device:
        overrides.append(f"device={options.device}")
    config = load_config(options.yaml_path, overrides)

    from sola.metrics import best_evaluation
    from sola.training import summary, train  # after the checks: torch takes seconds to import

    records = train(config, restart=options.restart)
    print(summary(records))
    best = best_evaluation(records)
    command = [
        "python process_feature.py",
        shlex.quote(f"--yaml_path={options.yaml_path}"),
        f"--load_model={best['epoch'] if best else 'last'}",
        *map(shlex.quote, options.overrides),
    ]
    print("next:", " ".join(command))


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
