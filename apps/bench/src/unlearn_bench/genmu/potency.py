"""How often the unmodified model heeds a prompt: forgetting what it never draws is no achievement."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genmu_eval.prompts import Question, Sheet
from unlearn_bench.genmu.judging import check, judged
from unlearn_bench.genmu.panel import judged_world
from unlearn_bench.genmu.worlds import World, by_text
from unlearn_bench.sd import config as configs
from unlearn_bench.sd import runner
from unlearn_bench.sd.experiment import Experiment, prepare
from unlearn_core.prompts import PromptSet
from unlearn_core.record import RunRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Unmodified:
    """A model as it came, with the judge of its pictures."""

    experiment: Experiment
    model: Any
    world: World

    @classmethod
    def of(
        cls,
        model: str,
        judges: Sequence[str] | None,
        settings: dict[str, Any],
        *,
        steps: int | None,
        device: str,
    ) -> "Unmodified":
        """Return the model that is called so.

        Raises:
            UnlearnError: there is none, or no such judge.
        """
        world = judged_world(model, None, judges, settings)
        mapping = {
            "technique": "none", "model": model, "device": device, "prompts": {"target": 1},
            "concept": {"name": "dog", "kind": "object"}, "metrics": None,
            "sampler": {} if steps is None else {"steps": steps},
        }  # fmt: skip
        experiment = prepare(configs.build(mapping, "the command line"), measured=False)
        return cls(experiment=experiment, model=runner.load(experiment), world=world)

    def tokens(self, text: str) -> int:
        """Return the number of tokens of a text, without those that mark its ends."""
        return len(self.model.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def potency(
        self, sheet: Sheet, out: Path, *, images: int, progress: runner.Progress | None = None
    ) -> Callable[[Sequence[Question]], list[float]]:
        """Return what gives the share of `images` pictures of each question of `sheet` that show what it asks for."""

        def shares(questions: Sequence[Question]) -> list[float]:
            draws = [by_text(draw) for draw in sheet.draws(images=images)]
            check(self.world, draws)
            rows = PromptSet(name=sheet.name, rows=tuple(draw.prompt for draw in draws))
            experiment = dataclasses.replace(self.experiment, prompts={"genmu": rows})
            samples = runner.draw(
                experiment, self.model, out, RunRecord.of("genmu-lint", {}), "prompts", progress
            )
            seen = judged(self.world, draws, samples)
            hits = [seen[draw.prompt.id, draw.question.asks] for draw in draws]
            return [sum(hits[i * images :][:images]) / images for i in range(len(questions))]

        return shares
