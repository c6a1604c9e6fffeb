"""Notation in docstrings and pages is set by the site; code stays as it is."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


site_hooks, examples = script("site_hooks"), script("docstring_examples")


def shown(text: str) -> str:
    """What a reader sees, subscripts in square brackets and superscripts in parentheses."""
    html = site_hooks.typeset(text, "")
    for old, new in (("<sub>", "["), ("</sub>", "]"), ("<sup>", "("), ("</sup>", ")")):
        html = html.replace(old, new)
    return html


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("P(s_{t+1}|s_t, a_t)", "P(s[t+1]|s[t], a[t])"),
        ("Σ_t γ^t r_t", "Σ[t] γ(t) r[t]"),
        ("w_nt ∇ log π(a_nt|s_nt)", "w[nt] ∇ log π(a[nt]|s[nt])"),
        ("Σ_{n,t: s_nt=s} w_n", "Σ[n,t: s[nt]=s] w[n]"),
        ("KL(π‖π_ref), 1+ε_high, c_start", "KL(π‖π[ref]), 1+ε[high], c[start]"),
        ("(1 + tr Σ / (N B))^(−1/2)", "(1 + tr Σ / (N B))(−1/2)"),
        ("(γλ)^k δ_{t+k}, ‖s_t‖^2", "(γλ)(k) δ[t+k], ‖s[t]‖(2)"),
        ("x_0ᵀ P_0 x_0, l̃_t, R(τ)^{1/|τ|}", "x[0]ᵀ P[0] x[0], l̃[t], R(τ)(1/|τ|)"),
    ],
)
def test_notation_is_set(written: str, seen: str) -> None:
    assert shown(written) == seen


@pytest.mark.parametrize(
    "text",
    [
        "n_step, to_go, log_prob, per_token, epsilon_high, vantage.row_gradients, lambda_=0.95",
        "<code>s_t ^2 [4]</code>",
        '<span class="arithmatex">\\(\\sum_t \\gamma^t\\)</span>',
        '<div class="highlight"><pre><span></span><code>&gt;&gt;&gt; ∇ x_{a}</code></pre></div>',
        "[0], [9], [12], [64]",
    ],
)
def test_what_is_no_notation_stays(text: str) -> None:
    assert site_hooks.typeset(text, "") == text


def test_text_after_code_and_formulas_is_set_again() -> None:
    text = '<p><span class="arithmatex">\\(x_t\\)</span> s_t <img src="a_b"> <code>x</code> s_t</p>'
    assert site_hooks.typeset(text, "").count("s<sub>t</sub>") == 2


def test_an_equation_by_itself_is_set() -> None:
    text = '<div class="highlight"><pre><span></span><code>ĝ = Σ_t w_t</code></pre></div>'
    assert "ĝ = Σ<sub>t</sub> w<sub>t</sub>" in site_hooks.typeset(text, "")


def test_equations_are_linked_to_headings_that_there_are() -> None:
    text = (ROOT / "docs" / "equations.md").read_text("utf-8")
    assert set(site_hooks.anchors()) == set("12345678")
    assert len(re.findall(r"^## \[\d\]", text, flags=re.M)) == 8
    linked = '<a href="../equations/#7-the-best-baseline">[7]</a>'
    assert site_hooks.typeset("see [7]", "../equations/") == f"see {linked}"
    for place in ("<h3>[7]</h3>", "<a href='#'>[7]</a>"):
        assert site_hooks.typeset(place, "../equations/") == place


def test_an_example_ends_where_its_blank_line_begins() -> None:
    written = "One.\n\nArgs:\n    x: a number.\n\n    >>> f(1)\n    2\n    >>> f(2)\n\nTwo."
    fenced = examples.fenced(written).splitlines()
    assert fenced.index("    ```pycon") == fenced.index("    >>> f(1)") - 1
    assert fenced.index("    ```") == fenced.index("    >>> f(2)") + 1
    assert fenced[-1] == "Two."
    assert [line for line in fenced if "```" not in line] == written.splitlines()
