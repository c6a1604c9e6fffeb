"""What a check of an environment gives back: findings with remedies, and what was measured."""

from dataclasses import asdict, dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check noticed.

    Attributes:
        severity: "error": training cannot work, or learns something else than is meant; "warning":
            training works here, and something else will not (a resumed run, an audit, another
            library, a longer run); "note": nothing is wrong, and it is good to know.
        check: which check noticed it.
        evidence: what was observed, in numbers.
        remedy: what to do.
    """

    severity: Severity
    check: str
    evidence: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.evidence}" + (f" Remedy: {self.remedy}" * bool(self.remedy))


@dataclass(frozen=True, repr=False)
class EnvironmentReport:
    """What `vantage.check_environment` noticed.

    Attributes:
        name: the name of the environment.
        findings: errors first, then warnings, then notes.
        passed: the checks that were made and noticed nothing wrong, by name.
        facts: what was measured, by name, in words with units.
        steps_per_second: the steps per second of the environment's lanes alone; None where speed
            was not measured.
        policy_share: the policy's share of the time of collecting and one gradient pass, the share
            that is left to the policy; None where speed was not measured.
    """

    name: str
    findings: list[Finding]
    passed: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    steps_per_second: float | None = None
    policy_share: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: there may be notes, and neither errors nor warnings."""
        return not self.errors and not self.warnings

    @property
    def errors(self) -> list[Finding]:
        """Findings that keep training from working, or bend what it learns."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that training survives."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def to_dict(self) -> dict[str, object]:
        """Everything, as JSON can hold it."""
        return asdict(self) | {"ok": self.ok}

    def __repr__(self) -> str:
        counts = [
            f"{number} {severity}{'s' if number != 1 else ''}"
            for severity in SEVERITIES
            if (number := sum(f.severity == severity for f in self.findings))
        ]
        verdict = "ok" if self.ok else "not ok"
        return f"<{verdict}: {self.name}, {', '.join(counts) or 'nothing noticed'}>"

    def __str__(self) -> str:
        verdict = "nothing is wrong" if self.ok else _wrong(self.errors, self.warnings)
        lines = [f"{self.name}: {verdict}"]
        for finding in self.findings:
            lines.append(f"  {finding.severity:<7}  {finding.check}: {finding.evidence}")
            if finding.remedy:
                lines.append(f"           -> {finding.remedy}")
        if self.passed:
            lines.append(f"  passed   {', '.join(self.passed)}")
        width = max((len(name) for name in self.facts), default=0)
        lines += [f"  {name:<{width}}  {fact}" for name, fact in self.facts.items()]
        return "\n".join(lines)


def by_severity(findings: list[Finding]) -> list[Finding]:
    """Errors first, each kind once: of findings alike but for numbers, the first."""
    return sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity))


def _wrong(errors: list[Finding], warnings: list[Finding]) -> str:
    pieces = [
        f"{len(many)} {word}{'s' if len(many) > 1 else ''}"
        for many, word in ((errors, "error"), (warnings, "warning"))
        if many
    ]
    return " and ".join(pieces)
