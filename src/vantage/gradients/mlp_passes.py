"""The passes of `vantage.gradients.passes` written out by hand, for perceptrons.

A small network spends its time in the bookkeeping of automatic differentiation, not in arithmetic:
for minibatches of 64 to 128 steps the same gradient comes several times faster without a graph. All
parameters lie in one flat tensor, so that an optimiser's step is one operation. With z the output
of a layer h = act(z), z = x Wᵀ + b, and δ the loss's slope in z:

    ∂/∂W = δᵀ x     ∂/∂b = Σ δ     slope in x = δ W     tanh′ = 1 − h²     relu′ = 1[h > 0]

On a processor tanh z is written 2σ(2z) − 1, which takes half the time of torch's tanh or less, and
it is this in acting, scoring and learning alike. It is as near to tanh as single precision is to 1:
within 2 × 10⁻⁷, where `nn.Tanh` is within 6 × 10⁻⁸ and near 0 nearer still. The two do not agree to
the bit, and neither do these passes and `AutogradPasses`. For few lanes NumPy's tanh acts, whose
calls cost less.

and for the policy's outputs, with weights w of log π and u of the entropy H,

    categorical   slope in logits = w (onehot(a) − π) − u π (log π + H)
    Gaussian      slope in mean = w (a − μ)/σ²        slope in log σ = Σ w (((a − μ)/σ)² − 1) + Σ u
"""

import math
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vantage.gradients.passes import AutogradPasses, Passes
from vantage.gradients.recorded import Recorded, recorder_for
from vantage.policies import Categorical, Gaussian, Policy, Value

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_FEW = 16  # lanes up to which NumPy's calls, cheaper each, act faster than torch's
_ACTIVATIONS = (nn.Tanh, nn.ReLU)
# A product of many rows is slow where its result has few columns: 2,048 rows of 4 inputs and 64
# outputs take 57 µs the other way round, not 323 (MKL, AVX2), 17 inputs 133 of 159, and 32 no less.
_MANY, _NARROW = 256, 4
_MINUS_ONE = torch.tensor(-1.0)


def fastest(policy: Policy, value: nn.Module | None) -> Passes:
    """Passes by hand where both networks are perceptrons, by automatic differentiation elsewhere.

    Perceptrons are made over: their parameters become views of one flat tensor, values unchanged.
    """
    hand_written = type(policy) in (Categorical, Gaussian) and (
        value is None or type(value) is Value
    )
    nets = [getattr(module, "net", None) for module in (policy, value) if module is not None]
    if hand_written and all(_perceptron(net) for net in nets) and _alike(policy, value):
        return MlpPasses(policy, value)  # type: ignore[arg-type]
    return AutogradPasses(policy, value)


def _perceptron(net: object) -> bool:
    """Whether `net` is Linear, activation, Linear, ..., Linear, all trained, nothing shared."""
    if not isinstance(net, nn.Sequential):
        return False
    layers = list(net)
    linear, between = layers[::2], layers[1::2]
    owned = [p for layer in linear for p in layer.parameters()]
    return (
        len(layers) % 2 == 1
        and all(type(layer) is nn.Linear and layer.bias is not None for layer in linear)
        and all(type(layer) in _ACTIVATIONS for layer in between)
        and all(p.requires_grad for p in owned)
        and len({id(p) for p in owned}) == len(owned)
        and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    )


def _alike(policy: Policy, value: nn.Module | None) -> bool:
    every = [p for m in (policy, value) if m is not None for p in m.parameters()]
    kinds = {(p.dtype, p.device) for p in every}
    return len(kinds) == 1 and len({id(p) for p in every}) == len(every)


class _Layer(NamedTuple):
    weight: Tensor  # [out, in]
    transposed: Tensor  # [in, out], the same memory
    bias: Tensor  # [out]
    weight_grad: Tensor
    bias_grad: Tensor
    relu: bool  # the activation after it; the last layer has none


class MlpPasses:
    """`Passes` for a Categorical or Gaussian policy and a Value, all perceptrons.

    Its methods are for `torch.no_grad()`: whoever makes many passes enters it once.
    """

    recorded: dict[object, Recorded] | None

    def __init__(self, policy: Categorical | Gaussian, value: Value | None = None):
        self.policy: Policy = policy
        self.value: nn.Module | None = value
        modules = [module for module in (policy, value) if module is not None]
        flat = torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])
        self.flat = nn.Parameter(flat)
        self.flat.grad = torch.zeros_like(flat)
        self.parameters = [self.flat]
        position = 0
        for module in modules:
            for parameter in module.parameters():
                place = slice(position, position + parameter.numel())
                parameter.data = flat[place].view_as(parameter)
                parameter.grad = self.flat.grad[place].view_as(parameter)
                position += parameter.numel()
        self.policy_size = sum(parameter.numel() for parameter in policy.parameters())
        self.log_std = policy.log_std if isinstance(policy, Gaussian) else None
        self.actor = _layers(policy.net)
        self.critic = None if value is None else _layers(value.net)
        recorder = recorder_for(flat.device)
        self.recorded = None if recorder is None else defaultdict(partial(Recorded, recorder))

    def acting(self, steps: int, lanes: int, generator: torch.Generator) -> "Drawing":
        """Draw with random numbers made for all steps at once."""
        log_std = None if self.log_std is None else self.log_std.detach()
        return Drawing(self.actor, log_std, steps, lanes, generator)

    def still(self) -> list[_Layer]:
        """Layers like those of the policy whose outputs are 0."""
        return [
            layer._replace(
                transposed=torch.zeros_like(layer.weight).t(), bias=torch.zeros_like(layer.bias)
            )
            for layer in self.actor
        ]

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """log π(a|s) and V(s)."""
        grid = observation.shape[:-1]
        flat = observation.reshape(-1, observation.shape[-1])
        self._actor_outputs = _forward(self.actor, flat)
        output = self._actor_outputs[-1]
        self._action = action.reshape(len(flat), *action.shape[len(grid) :])
        if self.log_std is not None:
            self._precision = (-self.log_std).exp()
            self._noise = (self._action - output).mul_(self._precision)
            log_prob = _normal(self._noise, self.log_std)
        else:
            self._log_probs = torch.log_softmax(output, -1)
            log_prob = self._log_probs.gather(-1, self._action.unsqueeze(-1)).squeeze(-1)
        if self.critic is None:
            return log_prob.view(grid), None
        self._critic_outputs = _forward(self.critic, flat)
        return log_prob.view(grid), self._critic_outputs[-1].view(grid)

    def values(self, observation: Tensor) -> Tensor | None:
        """V(s) alone."""
        if self.critic is None:
            return None
        flat = observation.reshape(-1, observation.shape[-1])
        return _forward(self.critic, flat)[-1].view(observation.shape[:-1])

    def clip(self, longest: float) -> Tensor:
        """Shorten the whole gradient to `longest` if it is longer."""
        assert self.flat.grad is not None
        norm = torch.linalg.vector_norm(self.flat.grad)
        self.flat.grad.mul_((longest / (norm + 1e-6)).clamp_(max=1.0))
        return norm

    def policy_gradient(self) -> Tensor:
        """The policy's part of the last backward pass, flat and uphill."""
        assert self.flat.grad is not None
        return -self.flat.grad[: self.policy_size]

    def backward(
        self,
        weight: Tensor,
        entropy_weight: Tensor | None = None,
        value_slope: Tensor | None = None,
    ) -> None:
        """Set `.grad` from the last forward pass."""
        weight = weight.reshape(-1, 1)
        bonus = None if entropy_weight is None else entropy_weight.reshape(-1, 1)
        if self.log_std is not None:
            slope = self._gaussian_slope(self.log_std, weight, bonus)
        else:
            slope = self._categorical_slope(weight, bonus)
        _backward(self.actor, self._actor_outputs, slope)
        if self.critic is not None:
            if value_slope is None:
                value_slope = torch.zeros_like(weight)
            _backward(self.critic, self._critic_outputs, value_slope.reshape(-1, 1))

    def _categorical_slope(self, weight: Tensor, bonus: Tensor | None) -> Tensor:
        """The loss's slope in the logits: the negative of the objective's."""
        probability = self._log_probs.exp()
        slope = probability * weight
        slope.scatter_add_(-1, self._action.unsqueeze(-1), -weight)
        if bonus is not None:
            # π log π is 0 where π is 0, also where its logit is −∞
            product = torch.where(probability > 0, probability * self._log_probs, 0)
            entropy = -product.sum(-1, keepdim=True)
            slope += bonus * (product + probability * entropy)
        return slope

    def _gaussian_slope(
        self, log_std: nn.Parameter, weight: Tensor, bonus: Tensor | None
    ) -> Tensor:
        """The loss's slope in the means; that in log σ is set here."""
        slope = self._noise * -weight
        total = (slope * self._noise).sum(0).add_(weight.sum())
        _grad(log_std).copy_(total if bonus is None else total - bonus.sum())
        return slope.mul_(self._precision)


class Drawing:
    """`Acting` for a perceptron: one chain of layers a step.

    argmax(logits + Gumbel noise) is a draw from the softmax; mean + σ × normal noise from the
    Gaussian.
    """

    def __init__(
        self,
        actor: list[_Layer],
        log_std: Tensor | None,
        steps: int,
        lanes: int,
        generator: torch.Generator,
    ):
        self.actor, self.log_std = actor, log_std
        self.outputs: list[Tensor] = []
        noise = actor[-1].bias.new_empty(steps, lanes, len(actor[-1].bias))
        if log_std is not None:
            noise.normal_(generator=generator)
        else:
            # −log E of a standard exponential E is Gumbel; a draw of exactly 0 is no draw
            noise.exponential_(generator=generator).clamp_min_(torch.finfo(noise.dtype).tiny)
            noise.log_().neg_()
        self.noise = noise
        self.shifts = shift = noise if log_std is None else noise * log_std.exp()
        few = lanes <= _FEW and noise.device.type == "cpu"
        self.few = _views(actor) if few else None
        self.shift: Any = shift.numpy() if few else shift.unbind()

    def __call__(self, step: int, observation: Tensor) -> Tensor:
        """The actions of a step."""
        shift = self.shift[step]
        if self.few is not None:
            few = _forward_few(self.few, observation.numpy())
            if self.log_std is not None:
                few += shift
                return torch.from_numpy(few)
            self.outputs.append(torch.from_numpy(few))
            return torch.from_numpy((few + shift).argmax(-1))
        output, action = drawn(self.actor, self.normal, observation, shift)
        if not self.normal:
            self.outputs.append(output)
        return action

    @property
    def normal(self) -> bool:
        """Whether actions are real numbers around the output, not ids."""
        return self.log_std is not None

    @property
    def address(self) -> int:
        """Where the weights lie."""
        return self.actor[0].weight.data_ptr()

    def scored(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a|s) and H(π(·|s)) of all steps drawn."""
        if self.log_std is not None:
            log_prob = _normal(self.noise.transpose(0, 1), self.log_std)
            constant = self.log_std.numel() * (_HALF_LOG_2PI + 0.5)
            return log_prob, (self.log_std.sum() + constant).expand_as(log_prob)
        # actions first: over a short last dimension nothing vectorises
        logits = torch.stack(self.outputs, 1).movedim(-1, 0).contiguous()
        log_probs = torch.log_softmax(logits, 0)
        probability = log_probs.exp()
        entropy = -torch.where(probability > 0, probability * log_probs, 0).sum(0)
        return log_probs.gather(0, action.unsqueeze(0)).squeeze(0), entropy


def drawn(
    actor: list[_Layer], normal: bool, observation: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """The output of the network, and the action that noise makes of it: a pure function."""
    output = _forward(actor, observation)[-1]
    shifted = output + shift
    return output, shifted if normal else shifted.argmax(-1)


def _normal(noise: Tensor, log_std: Tensor) -> Tensor:
    """The log-density of μ + σ × noise under N(μ, σ²)."""
    constant = log_std.sum() + _HALF_LOG_2PI * log_std.numel()
    return noise.square().sum(-1).mul_(-0.5).sub_(constant)


def _layers(net: nn.Module) -> list[_Layer]:
    modules = list(net.children())
    return [
        _Layer(
            layer.weight.data,
            layer.weight.data.t(),
            layer.bias.data,
            _grad(layer.weight),
            _grad(layer.bias),
            relu=i + 1 < len(modules) and isinstance(modules[i + 1], nn.ReLU),
        )
        for i, layer in enumerate(modules)
        if isinstance(layer, nn.Linear)
    ]


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _forward(layers: list[_Layer], observation: Tensor) -> list[Tensor]:
    """The input, the output of every hidden layer after its activation, and the last output."""
    outputs = [observation]
    last, one_kernel = len(layers) - 1, observation.device.type != "cpu"
    for i, layer in enumerate(layers):
        inputs = outputs[-1]
        if i == last or layer.relu or one_kernel:  # elsewhere every operation costs its launch
            output = torch.addmm(layer.bias, inputs, layer.transposed)
            if i < last:
                output = output.relu_() if layer.relu else output.tanh_()
        else:
            twice = torch.addmm(layer.bias, inputs, layer.transposed, beta=2, alpha=2)
            output = torch.add(_MINUS_ONE, twice.sigmoid_(), alpha=2, out=twice)
        outputs.append(output)
    return outputs


def _views(layers: list[_Layer]) -> list[tuple[object, object, bool]]:
    """Weights [in, out] and biases as NumPy arrays over the same memory, and whether relu."""
    return [(layer.transposed.numpy(), layer.bias.numpy(), layer.relu) for layer in layers]


def _forward_few(layers: list[tuple[object, object, bool]], observation: Any) -> object:
    """The last output of `_forward`, for few rows."""
    output, last = observation, len(layers) - 1
    for i, (weight, bias, relu) in enumerate(layers):
        output = output @ weight
        output += bias
        if i < last:
            np.maximum(output, 0, out=output) if relu else np.tanh(output, out=output)
    return output


def _set_weight_grad(gradient: Tensor, slope: Tensor, inputs: Tensor) -> None:
    """δᵀ x [out, in]; as (xᵀ δ)ᵀ where that is the faster product."""
    many = len(inputs) >= _MANY and inputs.device.type == "cpu"
    if many and _NARROW * inputs.shape[1] <= slope.shape[1]:
        gradient.copy_(torch.mm(inputs.t(), slope).t())
    else:
        torch.mm(slope.t(), inputs, out=gradient)


def _backward(layers: list[_Layer], outputs: list[Tensor], slope: Tensor) -> None:
    """Set the gradients of every layer from the loss's slope in the last output."""
    for i in range(len(layers) - 1, -1, -1):
        layer = layers[i]
        _set_weight_grad(layer.weight_grad, slope, outputs[i])
        torch.sum(slope, 0, out=layer.bias_grad)
        if i > 0:
            before = layers[i - 1]
            slope = slope @ layer.weight
            if before.relu:
                slope = torch.where(outputs[i] > 0, slope, 0)
            else:
                torch.ops.aten.tanh_backward.grad_input(slope, outputs[i], grad_input=slope)
