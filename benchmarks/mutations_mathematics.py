"""Pieces of the mathematics that `mutations.py` replaces, one at a time.

Rows are (kind, file in src/vantage, before, after, test files, expression for pytest -k).
"""

BITE = ("tests/test_bite.py",)
SETTINGS = ("tests/test_settings_matter.py",)

MATHEMATICS: list[tuple[str, str, str, str, tuple[str, ...], str]] = [
    ("Student's t", "statistics/estimate.py", "ppf(0.975, count - 1)", "ppf(0.975, count)", BITE,
     "student"),
    ("pair moments", "statistics/gram.py", "(units * (units - 3))", "(units * (units - 1))", BITE,
     "pair_moments"),
    ("pair moments", "statistics/gram.py", "- square / (units - 2)", "", BITE, "pair_moments"),
    ("spread", "statistics/bootstrap.py", "np.log(drawn / trace * units / (units - 1))",
     "np.log(drawn / trace)", BITE, "spread"),
    ("bandwidth", "statistics/bootstrap.py", "** 0.2", "** 0.5", BITE, "bandwidth"),
    ("memory", "environments/rollout.py", "started = step.terminated | step.truncated | ~step.real",
     "started = step.terminated | ~step.real", BITE, "memory"),
    ("stale ratio", "training/epochs.py", "on_policy = not stale and epoch == number == 0",
     "on_policy = epoch == number == 0", BITE, "stale"),
    ("target KL", "training/epochs.py", "1.5 * self.target_kl", "15 * self.target_kl", SETTINGS,
     "half_as_large"),
    ("refresh", "training/epochs.py", "if self.refresh and epoch:", "if False:", SETTINGS,
     "setting_is_heeded"),
    ("top p", "language/model/law.py", "p.cumsum(-1) - p < self.top_p",
     "p.cumsum(-1) - p <= self.top_p", BITE, "edge"),
    ("V-trace", "estimators/returns.py", "torch.where(batch.mask, rho * delta, 0)", "rho * delta",
     ("tests/test_returns.py", "tests/test_masks.py"), ""),
    ("V-trace", "estimators/returns.py", "carry * torch.where(batch.mask, c, 1)", "carry * c",
     ("tests/test_returns.py", "tests/test_masks.py"), ""),
]  # fmt: skip
