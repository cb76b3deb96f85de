"""What the *Models* page says, as text and as HTML made from plain values; no state, no model.

Beside `wording.py`, which has the words of the other page.
"""

from __future__ import annotations

from html import escape

from shell.audit_chart import (
    accuracy_chart,
    accuracy_sentence,
    attack_chart,
    attack_sentence,
    cost_chart,
    cost_sentence,
    drawn,
)
from shell.evidence import Evidence
from shell.loop import AUTO, LABELS, N_MODELS, N_PEOPLE, SHARES, methods_for
from shell.models import RunView, StepView

MODELS_INTRO = """
What dials do to a model: some people turn theirs, their photos in the training data are revised,
the model unlearns the originals without being trained again, and an audit compares it with models
that never saw them. It runs here, on **people who do not exist**, the same way as the six commands
in the README run on your own data.
"""
TARGET_CHOICES = (
    ("A linear head on dlib's face descriptor", "head"),
    ("A small network (ResNet), trained from nothing", "resnet"),
)
LABEL_CHOICES = tuple((name.capitalize(), name) for name in LABELS)
SHARE_CHOICES = tuple((f"{share:.0%}", share) for share in SHARES)
N_MODELS_CHOICES = tuple((f"{n}", n) for n in N_MODELS)
N_PEOPLE_CHOICES = tuple((f"{n}", n) for n in N_PEOPLE)
N_MODELS_INFO = (
    "The attack is tried on so many models of each kind, made for it. More take longer and say "
    "more; a release needs 8 or 16."
)
DURATION = "It takes some minutes, at most ten. Keep this page open: closing it ends the run."
LEGEND = (
    "**Retain**: photos left as they were. **Forget**: the originals that were revised. "
    "**Revised**: what replaced them. **Test**: other people. **Original**: the model before. "
    "**Reference**: trained again, on the revised photos only."
)
CURVE_NOTE = (
    "How often the attack recognises a forgotten photo, against its false alarms. The nearer to "
    "the diagonal and to the control, the less is left of the originals."
)
METHODS = {
    AUTO: "the default for this kind of model",
    "retrain": "train again on the revised photos: exact, and what the others are measured by",
    "newton-head": "two Newton steps to the revised photos' own optimum",
    "finetune-restart": "go on training on the revised photos, from a high learning rate",
    "reinit-finetune": "draw part of the weights anew, then train on the revised photos",
    "l1-sparse": "go on training while weights are pulled to zero",
    "clipped-noise": "clip the weights, add secret noise, train on: certified, at a price",
    "scrub": "move away from the original on forgotten photos, stay with it on the others",
    "neggrad-plus": "unlearn forgotten photos by ascent, up to a bound",
    "first-order": "one step along the influence gradient (baseline)",
    "second-order": "one Newton step (baseline)",
    "salun": "random labels, on the weights that matter for them (baseline)",
    "ssd": "shrink the weights that matter for forgotten photos (baseline)",
    "random-labels": "train forgotten photos on wrong labels (baseline)",
    "teacher": "follow an untrained network on forgotten photos (baseline)",
}
STEPS = {
    "simulate": (
        "Simulated raters answer",
        "each looks at variants and says which they would post",
    ),
    "fit": ("Preferences", "from answers to a strength for each person"),
    "revise": ("Revise the photos", "each person's, at their strength; the rest stay as they are"),
    "train": ("Train the original model", "on the photos as they were"),
    "unlearn": ("Unlearn", "update it to the revised photos, and retrain a reference beside it"),
    "audit": ("Audit", "attack it, and compare with models that never saw the originals"),
}
_MARKS = {"waiting": "○", "running": "●", "done": "✓", "cancelled": "–", "failed": "✕"}
_SAID = {
    "waiting": "to come",
    "running": "running",
    "done": "done",
    "cancelled": "ended",
    "failed": "failed",
}


def method_choices(target: str) -> list[tuple[str, str]]:
    """Return the methods that apply to a target, each with what it does."""
    return [
        (f"{name}: {METHODS.get(name, 'see the README')}", name) for name in methods_for(target)
    ]


def said_line(view: RunView) -> str:
    """Say what happens now; it changes with the step, not with each photo, as it is read aloud."""
    if view.state == "waiting":
        runs = "1 run is" if view.ahead == 1 else f"{view.ahead} runs are"
        return f"**Waiting.** {runs} before yours." if view.ahead else "**Starting.**"
    if view.state == "running":
        n_done = sum(step.state == "done" for step in view.steps)
        if n_done == len(view.steps):
            return "**Nearly done:** reading what was found."
        return f"**Step {n_done + 1} of {len(view.steps)}:** {STEPS[view.steps[n_done].name][0]}."
    if view.state == "done":
        seconds = sum(step.seconds for step in view.steps)
        return (
            f"**Done** in {_duration(seconds)}. Nothing of this run is left on the server's disk."
        )
    if view.state == "cancelled":
        return f"**Ended.** {view.message} Nothing of it is left.".replace("  ", " ")
    return f"**It did not work.** {escape(view.message)}"


def steps_html(view: RunView) -> str:
    """Return the list of steps, each with how far it is."""
    steps = view.steps or tuple(StepView(name) for name in STEPS)
    return f'<ol class="loop-steps">{"".join(map(_step, steps))}</ol>'


def verdict_line(evidence: Evidence) -> str:
    """Say whether the model may be released, and why not."""
    gate, audit = evidence.audit["gate"], evidence.audit
    n_checks, n_failed = len(gate["checks"]), len(gate["reasons"])
    people = audit["people"]
    scope = (
        f"\n\nMeasured on {people.get('retain', 0) + people.get('forget', 0)} people, "
        f"{people.get('forget', 0)} of them revised, with {audit['settings']['n_models']} models "
        "of each kind: enough to see how it works, too few to decide a release. The intervals say "
        "how rough it is."
    )
    if evidence.has_passed:
        return (
            f"### It passed the gate\nAll {n_checks} checks are within their limits: what was "
            f"tried here cannot tell this model from retrained ones.{scope}"
        )
    reasons = "".join(f"\n- {reason}" for reason in gate["reasons"])
    return (
        f"### It did not pass the gate\n{n_failed} of {n_checks} checks are beyond their limits, "
        f"so it would not be published:\n{reasons}{scope}"
    )


def charts_html(evidence: Evidence) -> str:
    """Return the audit as pictures, each with its title and its text alternative."""
    audit = evidence.audit
    parts = (
        ("Does it still know its work?", accuracy_chart(audit), ""),
        ("Can an attack tell it from a retrained model?", attack_chart(audit), ""),
        ("The attack's curve", drawn(evidence.picture("attack"), attack_sentence(audit)),
         CURVE_NOTE),
        ("What did it cost?", cost_chart(audit), cost_sentence(audit)),
    )  # fmt: skip
    figures = [
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}"
        f"{f'<p>{escape(note)}</p>' if note else ''}</figure>"
        for title, picture, note in parts
        if picture
    ]
    return f'<div class="audit">{"".join(figures)}</div>'


def numbers_table(evidence: Evidence) -> str:
    """Return the gate's checks and the accuracies as Markdown."""
    audit = evidence.audit
    checks = "".join(
        f"| {check['name']} | {_number(check['value'])} | {_number(check['limit'])} | "
        f"{'yes' if check['passed'] else '**no**'} |\n"
        for check in audit["gate"]["checks"]
    )
    limits = "".join(f"- {sentence}\n" for sentence in audit["limits"])
    return (
        f"| check | measured | limit | within |\n|---|---|---|---|\n{checks}\n"
        f"{accuracy_sentence(audit)}\n\n{attack_sentence(audit)}\n\n**Not claimed:**\n{limits}"
    )


def publish_line(evidence: Evidence | None, missing: str) -> str:
    """Say why the model cannot be published from here, or what publishing would do.

    Args:
        evidence: What was found, None before.
        missing: What the app was started without; empty where it can publish.
    """
    if missing:
        return f"**Publishing is off:** {missing}"
    if evidence is not None and not evidence.has_passed:
        return "**Publishing is off for this model:** it did not pass the gate."
    return "It goes into a private repository on the Hub, with its audit and a card."


def _step(step: StepView) -> str:
    title, what = STEPS[step.name]
    bar = ""
    if step.state == "running" and step.total:
        label = escape(f"{step.stage or title}, {step.done} of {step.total}")
        bar = (
            f'<progress value="{step.done}" max="{step.total}" aria-label="{label}"></progress>'
            f'<span class="quiet">{label}</span>'
        )
    seconds = f" · {_duration(step.seconds)}" if step.state != "waiting" else ""
    return (
        f'<li class="{step.state}"><span class="mark" aria-hidden="true">{_MARKS[step.state]}'
        f'</span><span class="step"><b>{escape(title)}</b> <span class="quiet">'
        f'{_SAID[step.state]}{seconds}</span><br/><span class="quiet">{escape(what)}</span>'
        f"{bar}</span></li>"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"
