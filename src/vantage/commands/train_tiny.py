"""`vantage train addition | copy | reverse | sort_letters`: a tiny model, from nothing."""

from collections.abc import Callable
from functools import partial

from tyro.conf import OmitArgPrefixes

from vantage.commands.language_options import (
    LearningOptions,
    carried_on,
    percent,
    print_end,
    print_plan,
    quieten,
    watch,
)
from vantage.language.model import tiny
from vantage.language.model.value_head import ValueHead
from vantage.language.scoring.arithmetic import shape_of
from vantage.language.tasks import tiny_tasks
from vantage.language.training.supervised import warm_up
from vantage.language.training.train import train
from vantage.runs.checkpoint import exists
from vantage.runs.progress import terminal
from vantage.runs.run import CHECKPOINT

# What suits a model of a million parameters, from nothing.
TINY = LearningOptions(
    batch=256, updates=1200, lr=2e-4, schedule="linear", evaluate_every=50, transcripts_every=50
)


def tiny_command(name: str) -> Callable[..., None]:
    """The command that trains a tiny model on the task of that name."""

    def train_tiny(
        learning: OmitArgPrefixes[LearningOptions] = TINY,
        num_generations: int = 4,
        start: float = 0.45,
        warm_up_steps: int = 600,
    ) -> None:
        """Train a tiny model: warm-up on gold answers, then policy gradient on exact match.

        A Llama of a million parameters with random weights reads characters. The warm-up, by
        cross-entropy, stops once gold answers have the probability --start; policy gradient does
        the rest. Prompts that are held out are in neither.

        Args:
            num_generations: completions per prompt.
            start: probability of gold answers at which the warm-up ends.
            warm_up_steps: the warm-up's limit.
        """
        import torch

        torch.set_num_threads(learning.threads)
        quieten()
        rule, seed, folder = learning.rule(), learning.seed, learning.folder(name)
        task = tiny_tasks.TASKS[name](num_generations=num_generations, seed=seed)
        policy = tiny.policy(seed, max_completion_length=tiny_tasks.longest_answer(task) + 1)
        if learning.dry_run:
            plan = learning.workload(
                task,
                [len(ids) for ids in task.encode(policy.tokenizer)],
                shape=shape_of(policy.base, 4),
                max_completion_length=policy.max_completion_length,
                reference="reference_log_prob" in rule.needs,
            )
            print_plan(rule, plan, folder)
            return
        if not (learning.resume and exists(folder / CHECKPOINT)):
            taught = warm_up(policy, task, warm_up_steps, seed=seed, until=start)
            terminal.print(
                f"Warm-up: {taught['steps']:.0f} steps in {taught['seconds']:.0f} s. Held out: "
                f"sampled {percent(task, policy, False)}, greedy {percent(task, policy, True)}."
            )
        run = carried_on(
            folder,
            partial(
                train,
                task,
                policy,
                rule,
                warmup=min(20, learning.updates // 10),
                value=ValueHead(policy) if "value" in rule.needs else None,
                watch=watch(folder, task, policy, learning.transcripts_every),
                **learning.settings(folder),
            ),
        )
        seconds = sum(row["step_time"] for row in run.history)
        terminal.print(
            f"Policy gradient: {len(run.history)} updates in {seconds:.0f} s. Held out: "
            f"sampled {percent(task, policy, False)}, greedy {percent(task, policy, True)}."
        )
        print_end(run, folder)

    train_tiny.__name__ = f"train_{name}"
    return train_tiny
