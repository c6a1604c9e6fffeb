"""Verifiers: rewards that check a completion against the gold answer, or its form.

Each function here returns a reward function in the convention of `vantage.language.Task`; settings
are its arguments. Several are combined with weights:

    Task(rows, [number(), format(r"<think>.*</think>.*")], weights=[1.0, 0.1])
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from vantage.errors import InputError, refuse_unless
from vantage.language.tasks.prompts import text_of

Reward = Callable[..., list[float | None]]

NUMBER = re.compile(
    r"""(?<![\w.])                                # not inside a word or another number
    (?:[-+−][$€£]?|[$€£][-+−]?)?                   # sign and currency
    (?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
    (?:[eE][-+]?\d+)?
    (?:\s?/\s?\d+)?                               # denominator
    """,
    re.VERBOSE,
)
LATEX_FRACTION = re.compile(r"(?<!\d)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
LATEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|\\[,;: ]|,?\\!)(?=\d{3}(?!\d))")  # 1{,}234 and 1\,234
LONGEST = 400  # decimal places on either side of the point: more is noise, and takes memory


def exact_match(answer: str = "answer", ignore_case: bool = False) -> Reward:
    """1 where the completion equals the gold answer, white space around both aside, else 0.

    Args:
        answer: the column with the gold answers.
        ignore_case: whether "Yes" equals "yes".

    >>> exact_match()([" 42", "43"], answer=["42", "42"])
    [1.0, 0.0]
    """

    def plain(text: object) -> str:
        stripped = str(text).strip()
        return stripped.casefold() if ignore_case else stripped

    def exact_match(completions: Sequence[object], **columns: object) -> list[float | None]:
        gold = _column(columns, answer, "exact_match")
        pairs = zip(completions, gold, strict=True)
        return [None if y is None else float(plain(text_of(x)) == plain(y)) for x, y in pairs]

    exact_match.reads = (answer,)  # type: ignore[attr-defined]
    return exact_match


def number(answer: str = "answer", tolerance: float = 0.0) -> Reward:
    """1 where the last number of the completion equals the last number of the gold answer, else 0.

    `1,234`, `1{,}234` of LaTeX, `$1234.00` and `1234` are one number; so are `1/2` and `0.5`. A
    minus sign counts where it is not a dash between words or digits. A completion without a number
    gets 0; a row whose gold answer is None is not scored.

    Args:
        answer: the column with the gold answers: numbers, or texts that end in one.
        tolerance: largest difference that counts as equal, relative to the gold number where
            that is larger than 1 in size.

    Raises:
        InputError: a gold answer without a number.

    >>> number()(["so 3 + 4 = 7.", "7 or 8"], answer=["7", 7])
    [1.0, 0.0]
    """

    def number(completions: Sequence[object], **columns: object) -> list[float | None]:
        gold = _column(columns, answer, "number")
        return [_same(text_of(x), y) for x, y in zip(completions, gold, strict=True)]

    def _same(text: str, gold: object) -> float | None:
        if gold is None:
            return None
        target, value = last_number(str(gold)), last_number(text)
        if target is None:
            raise InputError(f"The gold answer {gold!r} holds no number.")
        if value is None:
            return 0.0
        allowed = Fraction(tolerance) * max(Fraction(1), abs(target))
        return float(abs(value - target) <= allowed)

    number.reads = (answer,)  # type: ignore[attr-defined]
    return number


def last_number(text: str) -> Fraction | None:
    """The last number written in a text, exactly; None where there is none, or it is no value.

    >>> last_number("costs 3/4 of $1,200.50"), last_number("none")
    (Fraction(2401, 2), None)
    """
    plain = LATEX_COMMA.sub(",", text).replace(r"\$", "$")
    numbers = NUMBER.findall(LATEX_FRACTION.sub(r"\1/\2", plain))
    return _value(numbers[-1]) if numbers else None


def regular_expression(pattern: str, flags: int = re.DOTALL) -> Reward:
    """1 where the pattern is found anywhere in the completion, else 0.

    Args:
        pattern: a pattern of Python's `re`; anchor it with `^` and `$` to ask for more.
        flags: the flags of `re`; DOTALL lets . run over line ends.

    Raises:
        InputError: not a regular expression.

    >>> regular_expression(r"\\bcat\\b")(["a cat", "cats"])
    [1.0, 0.0]
    """
    compiled = _compile(pattern, flags)

    def regular_expression(completions: Sequence[object], **_: object) -> list[float | None]:
        return [float(compiled.search(text_of(x)) is not None) for x in completions]

    return regular_expression


def format(pattern: str = r"<think>.*?</think>\s*<answer>.*?</answer>") -> Reward:
    """1 where the whole completion has the given form, white space around it aside, else 0.

    Args:
        pattern: a regular expression that must match all of it; tags by default.

    >>> format(r"<answer>.*</answer>")(["<answer>4</answer>", "4"])
    [1.0, 0.0]
    """
    compiled = _compile(pattern, re.DOTALL)

    def format(completions: Sequence[object], **_: object) -> list[float | None]:
        return [float(compiled.fullmatch(text_of(x).strip()) is not None) for x in completions]

    return format


def length(target: int, slack: int | None = None) -> Reward:
    """1 for a completion of at most `target` tokens, falling to 0 at `target + slack`.

    A soft limit, as DAPO's overlong punishment (2503.14476, equation 13) but for an offset of 1.
    Tokens are those of `completion_ids`.

    Args:
        target: tokens that cost nothing.
        slack: tokens over which the reward falls to 0; `target` by default.

    >>> length(2, slack=2)(["", "", ""], completion_ids=[[5, 6], [5, 6, 7], [5, 6, 7, 8, 9]])
    [1.0, 0.5, 0.0]
    """
    over = target if slack is None else slack
    refuse_unless(
        target >= 1 and over >= 1, f"length(target={target}, slack={slack}): both at least 1."
    )

    def length(
        completions: Sequence[object], completion_ids: Any, **_: object
    ) -> list[float | None]:
        return [1.0 - min(max(len(ids) - target, 0) / over, 1.0) for ids in completion_ids]

    return length


BUILT_IN: dict[str, Callable[[], Reward]] = {
    "exact_match": exact_match,
    "number": number,
    "format": format,
}


def _column(columns: dict[str, object], name: str, verifier: str) -> Any:
    refuse_unless(
        name in columns,
        f"{verifier}() compares with the column {name!r}, and the data has no such column; say "
        f"which it is: {verifier}(answer=...).",
    )
    return columns[name]


def _compile(pattern: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}.") from error


def _value(written: str) -> Fraction | None:
    plain = re.sub(r"[\s,$€£]", "", written.replace("−", "-"))
    top, _, bottom = plain.partition("/")
    try:
        parts = [Decimal(term) for term in (top, bottom or "1")]
        if any(term and abs(term.adjusted()) > LONGEST for term in parts):
            return None
        return Fraction(parts[0]) / Fraction(parts[1])
    except (InvalidOperation, ZeroDivisionError):
        return None
