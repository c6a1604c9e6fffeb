"""What `vantage exact` prints: the article's numbers, the corridor's optimum, refusals."""

import io

import pytest
from rich.console import Console

from vantage.commands.exact import run
from vantage.errors import InputError


def printed(*arguments, **options):
    out = io.StringIO()
    run(*arguments, console=Console(file=out, width=140, highlight=False), **options)
    return out.getvalue()


def test_the_worked_example_as_the_article_tells_it(tmp_path):
    text = printed("article", figure=tmp_path / "article.png")
    for number in ("7", "5", "9.5", "3.5", "-2.5", "1.5", "(0.625, -0.625, -0.375, 0.375)"):
        assert number in text
    assert "(-1.75, 1.75, -1.25, 1.25)" in text
    assert "-0.399" in text
    for trace in ("26.688", "5.5625", "1.0625"):  # 427/16, 89/16, 17/16
        assert trace in text
    assert (tmp_path / "article.png").stat().st_size > 1000


def test_the_corridor_has_its_optimum():
    text = printed("corridor")
    assert "p(right) = 0.585786" in text
    assert "J = -11.6569" in text


def test_a_gymnasium_world_at_its_discount():
    text = printed("FrozenLake-v1", discount=0.99)
    assert "J = 0.0123561" in text
    assert "angle" in text


def test_refusals():
    with pytest.raises(InputError, match="drop the option"):
        printed("article", discount=0.9)
    with pytest.raises(InputError, match="NoSuchWorld"):
        printed("NoSuchWorld-v0")
