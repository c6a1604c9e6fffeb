"""A causal language model as a policy: the state is the tokens so far, the action the next."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vantage import policies
from vantage.arguments import checked
from vantage.environments.devices import device_named
from vantage.errors import InputError, refuse_unless
from vantage.language.model import adapters
from vantage.language.model.checkpointing import recomputed_layers, recomputing
from vantage.language.model.folders import model_folder, read_model
from vantage.language.model.head import Head, score_directly, score_hidden
from vantage.language.model.law import SamplingLaw
from vantage.language.model.trl import of_trainer
from vantage.language.model.trl_names import hinted

NOT_COUNTED = -1  # the action where no token was chosen: prompts and padding
ADAPTER = "adapter"  # beside the merged model
CAUSAL = "a saved causal language model"  # what a folder should hold
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
# of the largest logit: what merging an adapter may change by rounding
MERGED = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}


@hinted
@checked
class Policy(policies.Policy):
    """π(next token | tokens so far) of a Hugging Face causal language model, under a sampling law.

    A `Batch` of this policy has one completion a row. With a prompt of p tokens and a completion of
    c, the observation holds the first p + c − 1 tokens and the action, at each step, the token
    that follows: −1 where that is a token of the prompt or padding, which the mask leaves out.

    Dropout is off throughout: the policy that is scored is the one that samples.

    Args:
        model_or_path: a folder (or name in the local cache) that transformers can load, or a model.
        tokenizer: needed with a model object that is given prompts as text; loaded with a path.
        max_completion_length: tokens after which a completion is cut.
        temperature, top_k, top_p, min_p: the sampling law; see `SamplingLaw`.
        dtype: the type of the weights, e.g. torch.bfloat16; where None, float32 for what is loaded
            from a folder (4 bytes a weight, whatever it is stored in) and as it is for a model
            object. Training steps weights in half precision by copies in float32.
        lora: a peft `LoraConfig`, or a rank (on all linear layers but the head, α = 2 · rank), of a
            new adapter that is trained in place of the model. Where the folder holds an adapter,
            that one is trained on; with `lora` it is merged into the model first.
        seed: the seed of a new adapter's first weights.
        gradient_checkpointing: recompute layers in the backward pass instead of keeping them.
        device: where the model lives.

    Attributes:
        model: the transformers (or peft) model.
        tokenizer: or None.
        law: the one SamplingLaw that sampling and scoring obey.
        end_ids: token ids that end a completion.
        pad_id: what fills a row after its end; it is never seen by a step that counts.
        packed: whether completions may share a row with their prompt, in sampling and in scoring;
            training and audits find out.

    Raises:
        InputError: a model that cannot be scored from its hidden states, with the reason.
    """

    memoryless = False

    def __init__(
        self,
        model_or_path: object,
        tokenizer: object = None,
        *,
        max_completion_length: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        dtype: torch.dtype | None = None,
        lora: Any = None,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        device: str | torch.device = "cpu",
    ):
        super().__init__()
        refuse_unless(
            max_completion_length >= 1,
            f"Policy(max_completion_length={max_completion_length}): at least one token.",
        )
        device = device_named(device)
        self.law = SamplingLaw(temperature, top_k, top_p, min_p)
        self.max_completion_length = max_completion_length
        model, self.tokenizer = _loaded(model_or_path, tokenizer, dtype)
        if lora is not None:
            adapted = not isinstance(model_or_path, nn.Module) and hasattr(model, "peft_config")
            model = adapters.with_lora(adapters.merged(model) if adapted else model, lora, seed)
        self.model: Any = model.to(device).eval()
        self.gradient_checkpointing = gradient_checkpointing
        self._recomputed = recomputed_layers(self.model) if gradient_checkpointing else []
        self.end_ids = _end_ids(self.base, self.tokenizer)
        self.pad_id = self.end_ids[0] if self.end_ids else 0
        self.packed = True
        self.head = _head(self.base)
        self._check_head()

    @classmethod
    def from_trl(cls, trainer: Any) -> "Policy":
        """The model of a GRPOTrainer or RLOOTrainer, under the law that it samples by.

        The model is the trainer's own object: its parameters are shared, in their order.

        Raises:
            InputError: a law that no `SamplingLaw` is.
        """
        return cls(**of_trainer(trainer))

    @property
    def base(self) -> Any:
        """The transformers model, without a peft wrapper (its adapter layers stay active)."""
        peft = getattr(self.model, "get_base_model", None)
        return self.model if peft is None else peft()

    @property
    def decoder(self) -> nn.Module:
        """The model without its head: embeddings to last hidden states."""
        return self.base.get_decoder()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> "Policy":
        """Stays in evaluation mode: dropout would make the scored law another than the sampled."""
        return super().train(False)

    def states(
        self,
        tokens: Int[Tensor, "N L"],
        position: Int[Tensor, "N L"] | None = None,
        mask: object = None,
    ) -> Float[Tensor, "N L H"]:
        """Last hidden states [N, L, H] of rows that are padded on the right, if at all.

        Args:
            tokens: [N, L].
            position: [N, L] position ids; 0, 1, 2, ... where None.
            mask: a 4-D attention mask, or one for each kind of layer; causal where None.
        """
        # embeddings, not ids: some models look at ids for padding, which vmap cannot transform
        embedded = self.base.get_input_embeddings()(tokens)
        with recomputing(self._recomputed):
            out = self.decoder(
                inputs_embeds=embedded,
                position_ids=position,
                attention_mask=mask,
                use_cache=False,
            )
        return out.last_hidden_state

    def log_prob(
        self, observation: Int[Tensor, "*grid T"], action: Int[Tensor, "*grid T"]
    ) -> Float[Tensor, "*grid T"]:
        """log π(a_t|s_t) at steps whose action is a token; 0 where it is −1.

        Shapes: observation and action [N, T], or [T] of one row.
        """
        rows, tokens = _as_rows(observation), _as_rows(action)
        counted = tokens != NOT_COUNTED
        if _inside_vmap():
            with sdpa_kernel(SDPBackend.MATH):  # the others cannot be vectorised over rows
                hidden = self.states(rows)
            every = score_directly(self.head, self.law, hidden, tokens.clamp(min=0)).log_prob
            return torch.where(counted, every, 0).view_as(action)
        hidden = self.states(rows)
        log_prob = score_hidden(self.head, self.law, hidden[counted], tokens[counted]).log_prob
        grid = log_prob.new_zeros(tokens.shape).masked_scatter(counted, log_prob)
        return grid.view_as(action)

    def entropy(self, observation: Int[Tensor, "*grid T"]) -> Float[Tensor, "*grid T"]:
        """H(π(·|s_t)) in nats at every step, prompts included: mask them out."""
        hidden = self.states(_as_rows(observation)).flatten(0, 1)
        likeliest = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        if self.law.truncates:  # some token of the support: scoring adds the chosen one to it
            with torch.no_grad():
                parts = [self.head.logits(h).argmax(-1) for h in hidden.split(64)]
                likeliest = torch.cat(parts)
        scores = score_hidden(self.head, self.law, hidden, likeliest)
        return scores.entropy.view(observation.shape)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "*grid T"]) -> Int[Tensor, "*grid T"]:
        """The likeliest next token at every step."""
        return self.head.logits(self.states(_as_rows(observation))).argmax(-1).view_as(observation)

    @property
    def has_adapter(self) -> bool:
        """Whether the model has an adapter that can be switched off (LoRA)."""
        return hasattr(self.model, "disable_adapter")

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The model as it was before LoRA, for a reference policy that costs no memory.

        Raises:
            InputError: the model has no adapter.
        """
        refuse_unless(
            self.has_adapter, "without_adapter(): this policy has none; make it with lora=."
        )
        with self.model.disable_adapter():
            yield

    def describe(self) -> dict[str, object]:
        """What a run folder and an audit say of the model and of the law it samples by."""
        return {
            "class": type(self.base).__name__,
            "parameters": sum(p.numel() for p in self.parameters()),
            "trained": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "max_completion_length": self.max_completion_length,
            "law": asdict(self.law),
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer as transformers loads them.

        An adapter is merged into the model, and written by itself too, into the folder `adapter`.

        Raises:
            InputError: the merged model is another than the policy; its adapter is written then.
        """
        model = self.model
        if hasattr(model, "merge_and_unload"):
            alone = Path(folder) / ADAPTER
            model.save_pretrained(alone, save_embedding_layers=False)
            model = adapters.merged(model)
            apart, largest = adapters.apart(self.model, model)
            refuse_unless(
                apart <= MERGED.get(next(model.parameters()).dtype, 1e-3) * max(1.0, largest),
                f"Policy.save_pretrained: with its adapter merged the model's logits differ by "
                f"{apart:.2g} from the policy's; it was not written. The adapter is in {alone}.",
            )
        model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def refuse_unless_saved(self) -> None:
        """Try to save all but the weights.

        Raises:
            InputError: transformers refuses to write a configuration or the tokenizer.
        """
        parts = [self.base.config, getattr(self.base, "generation_config", None), self.tokenizer]
        for component in parts:
            if component is None:
                continue
            try:
                with TemporaryDirectory() as folder:
                    component.save_pretrained(folder)
            except Exception as error:
                raise InputError(
                    f"The {type(component).__name__} of the policy cannot be saved, and so the "
                    f"trained model could not be: {' '.join(str(error).split())} Change it "
                    "before training."
                ) from error

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse a model whose logits are not head(hidden): some scale or bias them in other ways.

        Two tokens are enough to see it.
        """
        tokens = torch.arange(2, device=self.device)[None]
        try:
            ours = self.head.logits(self.states(tokens)).float()
            logits = self.base(input_ids=tokens, use_cache=False).logits.float()
        except Exception as error:  # architectures fail in ways of their own
            raise InputError(
                f"Policy: {type(self.base).__name__} cannot be scored from embeddings by its "
                f"hidden states ({type(error).__name__}: {error}); this architecture is not "
                "supported."
            ) from error
        refuse_unless(
            bool(logits.isfinite().all()),
            f"Policy: the logits of {type(self.base).__name__} are not finite on two tokens; its "
            "weights are damaged, or beyond the range of their type.",
        )
        apart = float((ours - logits).abs().max()) / max(1.0, float(logits.abs().max()))
        refuse_unless(
            apart <= TOLERANCE.get(next(self.base.parameters()).dtype, 1e-4),
            f"Policy: the logits of {type(self.base).__name__} are not its vocabulary head applied "
            f"to its last hidden states (they differ by {apart:.2g} of the largest); this "
            "architecture is not supported.",
        )


def _loaded(
    model_or_path: Any, tokenizer: Any, dtype: torch.dtype | None, tokens: Path | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer, the latter from the folder `tokens` where that is given."""
    refuse_unless(
        tokenizer is None or callable(tokenizer),
        f"Policy(tokenizer={tokenizer!r}): a tokenizer is an object, such as "
        "AutoTokenizer.from_pretrained(folder).",
    )
    if isinstance(model_or_path, nn.Module):
        refuse_unless(
            hasattr(model_or_path, "config"),
            f"Policy: {type(model_or_path).__name__} is no model of transformers; give one, such "
            "as the one that it wraps (.module).",
        )
        return (model_or_path if dtype is None else model_or_path.to(dtype)), tokenizer
    from transformers import AutoModelForCausalLM

    folder = Path(model_folder(model_or_path, "Policy", CAUSAL))
    if (folder / adapters.CONFIG).is_file():
        beside = folder if (folder / "tokenizer_config.json").is_file() else None
        base, tokens = _loaded(adapters.base_of(folder), tokenizer, dtype, beside)
        return adapters.with_own(base, folder), tokens
    model, tokenizer, missing = read_model(
        AutoModelForCausalLM, model_or_path, "Policy", CAUSAL, dtype, tokenizer, tokens
    )
    refuse_unless(
        not missing,
        f"Policy({str(model_or_path)!r}): its files lack {', '.join(missing[:5])} "
        f"({len(missing)} weights in all), which would be random; save the model as a whole.",
    )
    return model, tokenizer


def _end_ids(model: Any, tokenizer: object) -> tuple[int, ...]:
    """What ends a completion: the tokenizer's end and those of the model's generation settings."""
    settings = getattr(model, "generation_config", None)
    ends = [
        getattr(tokenizer, "eos_token_id", None),
        getattr(settings, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
    ]
    flat = [i for ids in ends for i in (ids if isinstance(ids, (list, tuple)) else [ids])]
    vocabulary = model.config.vocab_size
    return tuple(dict.fromkeys(int(i) for i in flat if i is not None and 0 <= i < vocabulary))


def _head(model: Any) -> Head:
    layer = model.get_output_embeddings()
    refuse_unless(
        layer is not None, f"Policy: {type(model).__name__} has no vocabulary head; give a model "
        "for causal language modelling.",
    )  # fmt: skip
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    return Head(layer, cap, float(times or 1.0) / float(over or 1.0))


def _as_rows(tokens: Tensor) -> Tensor:
    return tokens.reshape(-1, tokens.shape[-1])


def _inside_vmap() -> bool:
    """Whether a function transform is at work: no boolean indexing, no custom backward then."""
    return torch._C._functorch.maybe_current_level() is not None
