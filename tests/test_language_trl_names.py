"""Keywords of TRL, given here: each is refused by what it is called here, which must exist."""

import inspect
import re

import pytest

import vantage as vt
from vantage import language
from vantage.errors import InputError
from vantage.language.model import tiny
from vantage.language.model.trl_names import NAMES

OURS = {
    "train": language.train,
    "Policy": language.Policy,
    "Task": language.Task,
    "recorder": language.recorder,
}
IN_WORDS = {"model", "args", "train_dataset", "reward_funcs", "max_prompt_length"}


def task() -> language.Task:
    return language.Task([{"prompt": "1"}, {"prompt": "2"}], lambda completions: [0.0], held_out=0)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("learning_rate", r"train\(lr=\)"),
        ("num_generations", r"Task\(num_generations=\)"),
        ("max_completion_length", r"Policy\(max_completion_length=\)"),
        ("beta", r"vantage\.estimators\.grpo\(beta=0\.04\)"),
    ],
)
def test_a_keyword_of_trl_is_refused_by_our_name(name: str, ours: str) -> None:
    policy = tiny.policy(0, hidden=16, layers=1, heads=2)
    told = rf"^train\({name}=\.\.\.\): {name} of TRL is .*{ours}"
    for train in (language.train, vt.train):
        with pytest.raises(InputError, match=told):
            train(task(), policy, vt.estimators.rloo(), updates=1, **{name: 1})


def test_tasks_and_policies_know_them_too() -> None:
    with pytest.raises(InputError, match=r"^Task\(reward_weights=\.\.\.\): .* Task\(weights=\)"):
        language.Task([{"prompt": "1"}], lambda completions: [0.0], reward_weights=[1.0])
    with pytest.raises(InputError, match=r"^Policy\(peft_config=\.\.\.\): .* Policy\(lora=\)"):
        language.Policy("nowhere", peft_config=None)
    # what is nobody's name is Python's to refuse
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        language.Task([{"prompt": "1"}], lambda completions: [0.0], colour=1)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_hint_names_exists(name: str) -> None:
    calls = re.findall(
        r"(?<![.\w])(train|Policy|Task)\(([^()]*(?:\([^()]*\)[^()]*)*)\)", NAMES[name]
    )
    for call, settings in calls:
        given = re.findall(r"(\w+)=", re.sub(r"\([^()]*\)", "", settings))
        assert set(given) <= set(inspect.signature(OURS[call]).parameters)
    rows = re.findall(r"vantage\.estimators\.(\w+)(?:\((\w+)=)?", NAMES[name])
    for row, setting in rows:
        parameters = inspect.signature(getattr(vt.estimators, row)).parameters
        assert not setting or setting in parameters
    for function in re.findall(r"language\.(\w+)\(", NAMES[name]):
        assert hasattr(language, function)
    assert calls or rows or name in IN_WORDS


def test_the_command_line_knows_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    from vantage.commands.language import dispatch

    for option, ours in (
        ("--learning-rate=1e-5", "--learning-rate is called --lr"),
        ("--max_steps", "--max-steps is called --updates"),
        ("--lora-r", "--lora-r is called --lora"),
    ):
        with pytest.raises(InputError, match=f"{ours}.* see vantage train lm --help"):
            dispatch(["train", "lm", "--model", "nowhere", option])
