"""How far the module sees beyond what it is compared at."""

from sola.config import Config


def reach_note(config: Config) -> list[str]:
    """A line where the outer gathered positions see beyond their window."""
    reach, last = config.reach, config.gathered_positions[-1]
    around = min(config.step_start, config.sampling_duration - 1 - last)
    enough = f"step_start={reach} sampling_duration={last - config.step_start + 2 * reach + 1}"
    line = (
        f"note: the module's reach of {reach} snippets exceeds the {around} around the gathered "
        "positions: the outer ones see zero padding, which tells them where they are (loss near "
        f"the floor, worst features); take {enough} or more, or smaller kernels"
    )
    return [line] if reach > around else []
