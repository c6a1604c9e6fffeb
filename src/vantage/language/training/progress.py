"""What a language-model run shows as it goes."""

from typing import Any

from vantage.runs.progress import Progress, windowed_snr


class LanguageProgress(Progress):
    """Reward, dead groups, length, entropy, signal-to-noise ratio, speed and time left."""

    def __init__(self, updates: int, history: list[dict[str, Any]], shown: bool):
        super().__init__(None, updates, history, shown)

    def figures(self) -> dict[str, str]:
        """What is shown, by name."""
        last = self.recent[-1]
        measured = [row for row in self.recent if "gradient_variance" in row]
        return {
            "update": f"{last['update']}",
            "reward": f"{last['reward']:.3f}",
            "dead groups": f"{last['frac_reward_zero_std']:.0%}",
            "length": f"{last['completions/mean_length']:.1f}",
            "entropy": f"{last['entropy']:.3f}",
            "gradient norm": f"{last['grad_norm']:.3g}",
            "SNR": f"{windowed_snr(measured):.2f}" if measured else "–",
            "tokens/s": f"{self._speed():,.0f}",
            "left": self._left(),
        }

    def _speed(self) -> float:
        tokens = sum(row["tokens_per_second"] * row["step_time"] for row in self.recent)
        return tokens / max(1e-9, sum(row["step_time"] for row in self.recent))
