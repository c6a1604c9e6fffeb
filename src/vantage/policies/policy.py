"""What training, auditing and evaluation ask of a policy."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vantage.errors import refuse_unless
from vantage.policies.export import write


class Terms(Protocol):
    """What `Policy.act` asks of `vantage.environments.terms.Terms`, which says what each is."""

    def read(self, observation: object, action_mask: object = None) -> tuple[Tensor, bool]:
        """One observation or a batch as a tensor [n, ...], and whether it was one alone."""
        ...

    def acting(self, policy: Any) -> Any:
        """A network that acts, with an `example()` of its inputs."""
        ...

    def write(self, action: Tensor, single: bool) -> object:
        """Actions [n, ...] as the environment takes them."""
        ...


class Policy(nn.Module):
    """A distribution over actions given an observation. Subclass it for one of your own.

    A policy with a memory sees more than the environment shows: `begin`, `see` and `remember` let a
    rollout put all of it into the recorded observation, so that a Batch needs no further field and
    `log_prob(observation, action)` stays a function of the record. A policy without one leaves
    the three as they are, at no cost:

        memory = policy.begin(lanes)
        seen = policy.see(observation, started, memory)      # what is recorded
        action, log_prob = policy.sample(seen, generator)
        memory = policy.remember(seen)
        env.step(policy.applied(action))

    Attributes:
        hidden: widths of the hidden layers where an environment made the policy; None where it is
            the user's own.
        arguments: those of `env.policy` by keyword that build a network of this shape again; None
            where only its owner can.
        terms: how its tensors correspond to an environment's observations and actions, for `act`;
            `env.policy()`, `vantage.train` and `vantage.load` set it.
        memoryless: True if log π(a_t|s_t) depends on the observation of step t alone. Rows of a
            batch must be kept whole for a policy that is not.
    """

    hidden: tuple[int, ...] | None = None
    arguments: dict[str, object] | None = None
    terms: Terms | None = None
    memoryless: bool = False
    _acts: int = 0  # how often `act` was called: its actions are drawn from (seed, number)
    _acting_memory: Tensor | None = None

    @torch.no_grad()
    def act(
        self,
        observation: object,
        deterministic: bool = False,
        *,
        first: object = False,
        action_mask: object = None,
        seed: int = 0,
    ) -> object:
        """What to do, in the environment's own terms: for a loop of your own.

            observation, _ = env.reset()
            action = policy.act(observation, first=True)
            observation, reward, terminated, truncated, _ = env.step(action)

        Normaliser, squashing, bounds, the ids that a Discrete space starts from and a memory are
        all taken care of, as in training and `vantage.evaluate`.

        Args:
            observation: one, or a batch as a vector environment gives it; NumPy, tensors, plain
                numbers, or dictionaries and tuples of these.
            deterministic: take the likeliest action instead of sampling.
            first: whether this observation begins an episode, [n] or one for all: a policy with a
                memory then starts from an empty one, and otherwise goes on from the call before.
                It makes no difference to a policy without a memory.
            action_mask: `info["action_mask"]`, where the policy was made for an environment that
                tells there which actions are allowed.
            seed: the seed of the actions, which are drawn from (seed, number of calls before).

        Returns:
            One action, or [n, ...], as the environment takes it; a tensor if `observation` is one.

        Raises:
            InputError: an observation of another shape; a policy that knows no environment.
        """
        refuse_unless(
            self.terms is not None,
            f"{type(self).__name__}.act: this policy was not made by env.policy(), so it does not "
            "know how the environment writes observations and actions; set policy.terms = "
            "env.terms.",
        )
        assert self.terms is not None
        batch, single = self.terms.read(observation, action_mask)
        parameter = next(self.parameters())
        dtype = parameter.dtype if batch.dtype == torch.float32 else batch.dtype
        batch = batch.to(parameter.device, dtype)
        began = torch.as_tensor(first).expand(len(batch)).to(batch.device, torch.bool)
        memory = self._acting_memory
        if memory is None or len(memory) != len(batch):
            memory, began = self.begin(len(batch)), torch.ones_like(began)
        what = self.see(batch, began, memory)
        if deterministic:
            action = self.mode(what)
        else:
            generator = torch.Generator(batch.device).manual_seed((seed << 32) + self._acts)
            action, _ = self.sample(what, generator)
        self._acts += 1
        self._acting_memory = self.remember(what)
        written = self.terms.write(self.applied(action), single)
        return torch.as_tensor(written) if isinstance(observation, Tensor) else written

    def export(self, path: str | Path) -> Path:
        """Write what `act(deterministic=True)` does as ONNX (.onnx) or TorchScript (.pt).

        Normaliser, squashing, bounds and the ids that spaces start from are inside. Input
        "observation" [n, ...] is as the environment shows it (Dict, Tuple and MultiDiscrete
        flattened as `gymnasium.spaces.flatten` does it); output "action" [n, ...]. A policy with a
        memory has an input "memory" [n, H], zeros where an episode begins, and an output
        "next_memory" for the next call. The file is read back and compared.

        Raises:
            InputError: another ending; a package that is missing; a policy that knows no
                environment, or that cannot be written.
        """
        refuse_unless(
            self.terms is not None,
            f"{type(self).__name__}.export: this policy was not made by env.policy(); set "
            "policy.terms = env.terms.",
        )
        assert self.terms is not None
        module = self.terms.acting(self)
        return write(module, module.example(), path)

    def sample(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw actions without a graph; returns action [..., *shape] and log π(a|s) [...]."""
        raise NotImplementedError

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log π(a|s) [...], differentiable."""
        raise NotImplementedError

    def entropy(self, observation: Tensor) -> Tensor:
        """H(π(·|s)) [...] in nats, differentiable."""
        raise NotImplementedError

    def distribution(self, observation: Tensor) -> Tensor:
        """The parameters of π(·|s), [..., *law], differentiable: what `divergence` compares.

        For a policy of your own it may be anything that says what the distribution is. Without it
        sampled actions are all that is known of the policy; see `tells_distribution`.
        """
        raise NotImplementedError

    def divergence(self, first: Tensor, second: Tensor) -> Tensor:
        """KL(first ‖ second) [...] in nats, exact and differentiable in both.

        Args:
            first, second: as `distribution` gives them, [..., *law].
        """
        raise NotImplementedError

    def kl(self, observation: Tensor, other: "Policy") -> Tensor:
        """KL(π(·|s) ‖ π_other(·|s)) [...] in nats, exact and differentiable in both.

        Args:
            observation: [..., *shape].
            other: a policy of the same class.
        """
        return self.divergence(self.distribution(observation), other.distribution(observation))

    def tells_distribution(self) -> bool:
        """Whether `distribution` is that of `log_prob`, as far as can be told from its class.

        It is where the two are inherited together: a subclass that has a `log_prob` of another law
        needs a `distribution` of its own.
        """
        owner = {
            name: next(n for n, kind in enumerate(type(self).__mro__) if name in vars(kind))
            for name in ("distribution", "divergence", "log_prob")
        }
        last = type(self).__mro__.index(Policy)
        return owner["distribution"] <= owner["log_prob"] and owner["divergence"] < last

    def mode(self, observation: Tensor) -> Tensor:
        """The likeliest action, [..., *shape]."""
        raise NotImplementedError

    def applied(self, action: Tensor) -> Tensor:
        """What the environment is given where `action` was drawn and recorded: the same."""
        return action

    def begin(self, lanes: int) -> Tensor | None:
        """The memory of every lane before its first step, [lanes, H]; None without one."""
        return None

    def see(self, observation: Tensor, started: Tensor, memory: Tensor | None) -> Tensor:
        """All that the policy sees at this step, [lanes, ...]: what the rollout records.

        Args:
            observation: the observation of the environment, [lanes, ...].
            started: [lanes] True where it is the first of an episode.
            memory: as `begin` or `remember` gave it.
        """
        return observation

    def remember(self, observation: Tensor) -> Tensor | None:
        """The memory, [lanes, H], after the step that showed `observation`; None without."""
        return None
