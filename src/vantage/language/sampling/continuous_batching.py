"""Generation by transformers' continuous batching: for GPUs, and completions of all lengths.

Its key-value cache is paged, a prompt is computed once however many completions it has, and the
place of a completion that has ended is taken by one that waits. Every call sets the cache up anew,
which on a CPU and for short completions costs more than it gains: there `Decoding` is faster.
"""

import math
from dataclasses import dataclass

import torch

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Completions, finished, steps_allowed

PAGE = 256  # tokens of a page of the cache


@checked
@dataclass(frozen=True)
class ContinuousBatching:
    """The engine of transformers, which draws from the policy's law.

    The same generator state gives the same completions on the same machine; they are others than
    those of `Decoding`. Log-probabilities are those of the law that the tokens were drawn from.

    Attributes:
        pages: how many pages of 256 tokens the cache has; where None, what transformers finds room
            for on a GPU, and at most 256 on a CPU.
        batch_tokens: tokens of one forward pass, at most; where None, what transformers chooses on
            a GPU, and 1,024 on a CPU.
    """

    pages: int | None = None
    batch_tokens: int | None = None

    def generate(
        self,
        policy: Policy,
        prompts: list[list[int]],
        num_generations: int,
        generator: torch.Generator,
        max_length: int | None = None,
    ) -> Completions:
        """As in `Engine`.

        Raises:
            InputError: an empty prompt, or one that leaves no room within the model's positions;
                a model that bounds its attention logits (Gemma 2).
            RuntimeError: a completion failed in transformers, with what it said.
        """
        # here: they bring all of transformers' generation with them, a second of imports
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        steps = steps_allowed(policy, prompts, num_generations, max_length)
        refuse_unless(
            getattr(policy.base.config, "attn_logit_softcapping", None) is None,
            "ContinuousBatching: the paged attention of transformers leaves out the bound on "
            f"attention logits that {type(policy.base).__name__} has; use Decoding().",
        )
        law, on_cpu = policy.law, policy.device.type == "cpu"
        config = GenerationConfig(
            do_sample=True,
            num_return_sequences=num_generations,
            max_new_tokens=steps,
            eos_token_id=list(policy.end_ids),
            pad_token_id=policy.pad_id,
            temperature=law.temperature,
            top_k=law.top_k or 0,
            top_p=1.0 if law.top_p is None else law.top_p,
            min_p=law.min_p,
        )
        pages, batch_tokens = self.pages, self.batch_tokens
        if on_cpu:  # transformers looks at a GPU's memory
            whole = sum(math.ceil((len(prompt) + steps) / PAGE) + 1 for prompt in prompts)
            pages = pages or min(whole * num_generations, 256)
            batch_tokens = batch_tokens or 1024
        paging = ContinuousBatchingConfig(
            num_blocks=pages,
            max_batch_tokens=batch_tokens,
            return_logprobs=True,
            drop_unsupported_processors=False,  # the law is obeyed or refused
            seed=int(torch.randint(1 << 31, (), generator=generator)),
        )
        devices = [] if on_cpu else [policy.device]
        with torch.random.fork_rng(devices):  # it seeds the global generators
            results = policy.base.generate_batch(
                prompts, generation_config=config, continuous_batching_config=paging
            )
        errors = {result.error for result in results.values()} - {None}
        if errors or len(results) != len(prompts) * num_generations:
            raise RuntimeError(
                f"transformers' continuous batching finished {len(results)} of "
                f"{len(prompts) * num_generations} completions"
                + (f" and said: {'; '.join(sorted(map(str, errors)))}" if errors else ".")
            )
        tokens = torch.full((len(results), steps), policy.pad_id)
        log_prob = torch.zeros(len(results), steps)
        # in the order of prompts, those of one prompt together
        for row, result in enumerate(results.values()):
            length = len(result.generated_tokens)
            tokens[row, :length] = torch.tensor(result.generated_tokens)
            log_prob[row, :length] = torch.tensor(result.logprobs)
        return finished(tokens, log_prob, policy.end_ids, policy.pad_id)
