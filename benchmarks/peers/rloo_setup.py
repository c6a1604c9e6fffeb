"""What the workers of benchmarks/language.py share: cases, prompts, rewards, turns at the clock.

Standard library and transformers only, because it runs in the interpreter of the peer too.
"""

import json
import random
import sys
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A model, and what is asked of it. Completions never end before `tokens`.

    Attributes:
        vocabulary, hidden, layers, intermediate, tied: of a Llama with 4 heads.
        prompt: tokens of every prompt.
        completions, group, tokens: of a batch; of a prompt; of a completion.
    """

    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    prompt: int
    completions: int
    group: int
    tokens: int
    tied: bool = False


CASES = {
    "84k": Case(100, 64, 2, 128, 8, 32, 8, 8),
    "1M, short prompts": Case(100, 128, 4, 512, 8, 64, 8, 32),
    "1M, prompts of 256": Case(100, 128, 4, 512, 256, 64, 8, 32),
    "10M, short prompts": Case(8_000, 256, 8, 1024, 8, 32, 8, 32, tied=True),
    "100M, short prompts": Case(32_000, 768, 12, 2048, 8, 16, 8, 16, tied=True),
    "vocabulary of 152k": Case(152_000, 64, 2, 128, 16, 16, 8, 128, tied=True),
}


def words(case: Case) -> list[str]:
    """The vocabulary: <pad>, <unk>, and then words; the end token is one more, never sampled."""
    return ["<pad>", "<unk>", *(f"w{n}" for n in range(2, case.vocabulary)), "<end>"]


def tokenizer(case: Case) -> Any:
    """Words to ids, padding on the left.

    The end token's id is one beyond the logits of the model, so that completions never end early
    and all trainers decode the same number of tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: n for n, word in enumerate(words(case))}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        padding_side="left",
    )


def model(case: Case, seed: int = 0) -> Any:
    """A Llama with random weights, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.vocabulary,
            hidden_size=case.hidden,
            intermediate_size=case.intermediate,
            num_hidden_layers=case.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=case.tied,
        )
    )


def prompts(case: Case) -> list[str]:
    """64 prompts of random words."""
    draw = random.Random(0)
    return [
        " ".join(f"w{draw.randrange(2, case.vocabulary)}" for _ in range(case.prompt))
        for _ in range(64)
    ]


def reward(completions: list[str], **_: Any) -> list[float]:
    """The share of words with an even number: every completion has one, and they differ."""
    return [
        sum(int(w[1:]) % 2 == 0 for w in c.split()) / max(1, len(c.split())) for c in completions
    ]


class Turns:
    """Takes turns with other processes: waits for a line, times some steps, says how long.

    A line is the number of steps to take, or "end".
    """

    def __init__(self) -> None:
        self.left = 0
        self.times: list[float] = []

    def step_done(self, seconds: float) -> bool:
        """Note a step; at the end of a turn report and wait. False when there are no more turns."""
        self.times.append(seconds)
        self.left -= 1
        return self.left > 0 or self.wait()

    def wait(self) -> bool:
        """Report the turn that is over and wait for the next one."""
        print("\n" + json.dumps({"times": self.times, "peak": peak_kilobytes()}), flush=True)
        self.times = []
        line = sys.stdin.readline().strip()
        self.left = int(line) if line.isdigit() else 0
        self.began = time.perf_counter()
        return self.left > 0


def peak_kilobytes() -> int:
    """The most memory the process has had, kB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Start measuring the peak anew; returns the memory held now, kB."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak_kilobytes()
