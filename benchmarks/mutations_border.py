"""The border of environments: pieces of source that `mutations.py` replaces, one at a time.

Rows are (kind, file in src/vantage/environments, before, after, expression for pytest -k).
"""

COPIES = "write_into_the_actions or observations_on_record or overwrote or told_apart"
COUNTS = "steps_of_whole or lets_lanes_wait or accounts"
SHARED = "callback_leaves or foreign"
SUMS = "double_precision or add_up"
INTEGERS = "every_integer"
CENTRED = "taken_off or takes_the_mean"
LONG = "outlasts or bounded_time"
REPLAY = "lengths_that_cannot_be"
FINITE = "refused_on_every_path"
IDS = "ids_outside"
DIGITS = "significant_digits or small_means"
STARTS = "of_one_start or between_starts"
SCALED = "any_size"
DEAD = "dies or names_the_lane"
ARGUMENTS = "another_kind or seed_is or numpy or settings_of_a_column"

M: list[tuple[str, str, str, str, str]] = [
    ("copies", "spaces.py", "else ids.astype(dtype)", "else ids.astype(dtype, copy=False)", COPIES),
    ("copies", "spaces.py", "return vector.astype(dtype)",
     "return vector.astype(dtype, copy=False)", COPIES),
    ("copies", "lanes.py", "observations[lane] = self._copied(shown)\n                rewards",
     "observations[lane] = shown\n                rewards", COPIES),
    ("copies", "gymnasium.py", "            self._refuse_overwritten(ended, info[\"final_obs\"])\n",
     "", COPIES),
    ("counts", "rollout.py", "wait(~going)", "pass", COUNTS),
    ("counts", "rollout.py", "taken += int(step.real.sum())",
     "taken += int((step.real & going).sum())", COUNTS),
    ("counts", "lanes.py", "if waiting is not None and waiting[lane]:", "if False:", COUNTS),
    ("shared lanes", "../training/evaluation.py", "if is_held(env):", "if False:", SHARED),
    ("shared lanes", "fragments.py", "is_held(self.env, self) and", "True and", SHARED),
    ("shared lanes", "fragments.py", "and position(self.env) == self.position,", ",", SHARED),
    ("shared lanes", "gymnasium.py", "        hold(self, None)\n", "", SHARED),
    ("sums", "rollout.py", "over_time(raw).to(torch.float64)", "over_time(raw).float()", SUMS),
    ("sums", "gymnasium.py", "np.array(gained, np.float64)", "np.array(gained, np.float32)", SUMS),
    ("sums", "fragments.py", "self.returns = torch.zeros(self.env.lanes, dtype=torch.float64",
     "self.returns = torch.zeros(self.env.lanes, dtype=torch.float32", SUMS),
    ("integers", "spaces.py", "np.floor(vector.astype(np.float64) + 0.5)",
     "np.trunc(vector.astype(np.float64))", INTEGERS),
    ("integers", "spaces.py", "vector.astype(np.float64) + 0.5", "vector.astype(np.float64)",
     INTEGERS),
    ("integers", "fitted.py", "low.double() - 0.5, high.double() + 0.5",
     "low.double(), high.double()", INTEGERS),
    ("centred", "gymnasium.py", "self.observations, self.name, np.float64)",
     "self.observations, self.name, np.float32)", CENTRED),
    ("centred", "normalise.py", "self.env = _precise(env)", "self.env = env", CENTRED),
    ("centred", "terms.py", "np.float32 if self.normalise is None else np.float64", "np.float32",
     CENTRED),
    ("long episodes", "../training/control.py",
     "if int(self.fragments.lengths.max()) < steps:", "if True:", LONG),
    ("long episodes", "../training/control.py", '"restart": self.restart,',
     '"restart": self.settings.restart,', LONG),
    ("long episodes", "../training/control.py", "min(2 * self.restart, MOST_STEPS)",
     "2 * self.restart", LONG),
    ("replay", "fragments.py", "            return False\n        self.sight.observation = shown",
     "            return True\n        self.sight.observation = shown", REPLAY),
    ("replay", "fragments.py", "rtol=1e-4, atol=1e-5", "rtol=1e-4, atol=1e5", REPLAY),
    ("finite", "fragments.py", "total = total + step.final_observation.sum()", "pass", FINITE),
    ("finite", "rollout.py",
     '    refuse_unless_finite(step.final_observation, "observation", env, where)\n', "", FINITE),
    ("finite", "rollout.py", "not torch.isfinite(tensor.float().sum())",
     "not torch.isfinite(tensor.sum())", FINITE),
    ("ids", "spaces.py", "if (ids < 0).any() or (ids > upper).any():", "if (ids > upper).any():",
     IDS),
    ("ids", "spaces.py", "if (ids < 0).any() or (ids > upper).any():", "if (ids < 0).any():", IDS),
    ("ids", "spaces.py", "ids = within(piece.reshape", "ids = (lambda x: x)(piece.reshape", IDS),
    ("digits", "../runs/progress.py", "max(1, 2 - size)", "1", DIGITS),
    ("digits", "../training/evaluation.py", 'f"mean return {return_text(self.mean)}, 95',
     'f"mean return {self.mean:.1f}, 95', DIGITS),
    ("starts", "gymnasium.py", "reseed(env, [seed, i])",
     "env.unwrapped.np_random = np.random.default_rng([seed, i])", STARTS),
    ("starts", "generators.py",
     "thing.bit_generator.state = type(thing.bit_generator)(sequence).state", "pass", STARTS),
    ("starts", "generators.py", "            thing.seed(word)", "            pass", STARTS),
    ("starts", "generators.py", "thing.manual_seed(word)", "pass", STARTS),
    ("scale", "normalise.py", "epsilon * (variance[-1] + mean[-1] ** 2)", "epsilon", SCALED),
    ("blame", "lanes.py", 'error.add_note(f"This was in lane', 'str(f"This was in lane', DEAD),
    ("blame", "gymnasium.py", "raise worker_death(vector, self.name) from error", "pass", DEAD),
    ("arguments", "../arguments.py", "return kind is bool", "return True", ARGUMENTS),
    ("arguments", "../arguments.py", "not kinds or (right and finite)", "not kinds or right",
     ARGUMENTS),
    ("arguments", "../arguments.py", "or value >= 0", "or True", ARGUMENTS),
    ("arguments", "../estimators/columns.py", "holds(float(value)),", "True,",
     ARGUMENTS),
]  # fmt: skip
