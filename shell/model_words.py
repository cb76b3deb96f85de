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
from shell.audit_files import accuracy_csv, attack_csv, audit_links, cost_csv, plot_links
from shell.evidence import Evidence
from shell.languages import ENGLISH, Speaker, message
from shell.loop import AUTO, LABELS, N_MODELS, N_PEOPLE, SHARES, methods_for
from shell.models import RunView, StepView

MODELS_INTRO = message("""
What dials do to a model: some people turn theirs, their photos in the training data are revised,
the model unlearns the originals without being trained again, and an audit compares it with models
that never saw them. It runs here, on **people who do not exist**, the same way as the six commands
in the README run on your own data.
""")
TARGET_CHOICES = (
    (message("A linear head on dlib's face descriptor"), "head"),
    (message("A small network (ResNet), trained from nothing"), "resnet"),
)
_LABEL_NAMES = {"smiling": message("Smiling"), "gender": message("Gender")}
LABEL_CHOICES = tuple((_LABEL_NAMES[name], name) for name in LABELS)
_SHARE_NAMES = {0.1: message("10%"), 0.25: message("25%"), 0.5: message("50%")}
SHARE_CHOICES = tuple((_SHARE_NAMES[share], share) for share in SHARES)
N_MODELS_CHOICES = tuple((f"{n}", n) for n in N_MODELS)
N_PEOPLE_CHOICES = tuple((f"{n}", n) for n in N_PEOPLE)
N_MODELS_INFO = message(
    "The attack is tried on so many models of each kind, made for it. More take longer and say "
    "more; a release needs 8 or 16."
)
DURATION = message(
    "It takes some minutes, at most ten. Keep this page open: closing it ends the run."
)
LEGEND = message(
    "**Retain**: photos left as they were. **Forget**: the originals that were revised. "
    "**Revised**: what replaced them. **Test**: other people. **Original**: the model before. "
    "**Reference**: trained again, on the revised photos only."
)
CURVE_NOTE = message(
    "How often the attack recognises a forgotten photo, against its false alarms. The nearer to "
    "the diagonal and to the control, the less is left of the originals."
)
METHODS = {
    AUTO: message("auto: the default for this kind of model"),
    "retrain": message(
        "retrain: train again on the revised photos: exact, and what the others are measured by"
    ),
    "newton-head": message("newton-head: two Newton steps to the revised photos' own optimum"),
    "finetune-restart": message(
        "finetune-restart: go on training on the revised photos, from a high learning rate"
    ),
    "reinit-finetune": message(
        "reinit-finetune: draw part of the weights anew, then train on the revised photos"
    ),
    "l1-sparse": message("l1-sparse: go on training while weights are pulled to zero"),
    "clipped-noise": message(
        "clipped-noise: clip the weights, add secret noise, train on: certified, at a price"
    ),
    "scrub": message(
        "scrub: move away from the original on forgotten photos, stay with it on the others"
    ),
    "neggrad-plus": message("neggrad-plus: unlearn forgotten photos by ascent, up to a bound"),
    "first-order": message("first-order: one step along the influence gradient (baseline)"),
    "second-order": message("second-order: one Newton step (baseline)"),
    "salun": message("salun: random labels, on the weights that matter for them (baseline)"),
    "ssd": message("ssd: shrink the weights that matter for forgotten photos (baseline)"),
    "random-labels": message("random-labels: train forgotten photos on wrong labels (baseline)"),
    "teacher": message("teacher: follow an untrained network on forgotten photos (baseline)"),
}
STEPS = {
    "simulate": (
        message("Simulated raters answer"),
        message("each looks at variants and says which they would post"),
    ),
    "fit": (message("Preferences"), message("from answers to a strength for each person")),
    "revise": (
        message("Revise the photos"),
        message("each person's, at their strength; the rest stay as they are"),
    ),
    "train": (message("Train the original model"), message("on the photos as they were")),
    "unlearn": (
        message("Unlearn"),
        message("update it to the revised photos, and retrain a reference beside it"),
    ),
    "audit": (
        message("Audit"),
        message("attack it, and compare with models that never saw the originals"),
    ),
}
_MARKS = {"waiting": "○", "running": "●", "done": "✓", "cancelled": "–", "failed": "✕"}
_SAID = {
    "waiting": message("to come"),
    "running": message("running"),
    "done": message("done"),
    "cancelled": message("ended"),
    "failed": message("failed"),
}


def method_choices(target: str, *, say: Speaker = ENGLISH) -> list[tuple[str, str]]:
    """Return the methods that apply to a target, each with what it does."""
    return [(say(METHODS.get(name, name)), name) for name in methods_for(target)]


def said_line(view: RunView, *, say: Speaker = ENGLISH) -> str:
    """Say what happens now; it changes with the step, not with each photo, as it is read aloud."""
    if view.state == "waiting":
        return _waiting_line(view.ahead, say)
    if view.state == "running":
        return _running_line(view, say)
    if view.state == "done":
        return say(
            "**Done** in {duration}. Nothing of this run is left on the server's disk.",
            duration=_duration(sum(step.seconds for step in view.steps)),
        )
    reason = escape(say.fault(view.message)) if view.message else ""
    if view.state == "failed":
        return say("**It did not work.** {reason}", reason=reason)
    if not reason:
        return say("**Ended.** Nothing of it is left.")
    return say("**Ended.** {reason} Nothing of it is left.", reason=reason)


def steps_html(view: RunView, *, say: Speaker = ENGLISH) -> str:
    """Return the list of steps, each with how far it is."""
    steps = view.steps or tuple(StepView(name) for name in STEPS)
    return f'<ol class="loop-steps">{"".join(_step(step, say) for step in steps)}</ol>'


def verdict_line(evidence: Evidence, *, say: Speaker = ENGLISH) -> str:
    """Say whether the model may be released, and why not."""
    gate, audit = evidence.audit["gate"], evidence.audit
    n_checks, n_failed = len(gate["checks"]), len(gate["reasons"])
    people = audit["people"]
    scope = say(
        "Measured on {n_people} people, {n_revised} of them revised, with {n_models} models of "
        "each kind: enough to see how it works, too few to decide a release. The intervals say "
        "how rough it is.",
        n_people=people.get("retain", 0) + people.get("forget", 0),
        n_revised=people.get("forget", 0),
        n_models=audit["settings"]["n_models"],
    )
    if evidence.has_passed:
        verdict = say(
            "### It passed the gate\nAll {n_checks} checks are within their limits: what was "
            "tried here cannot tell this model from retrained ones.",
            n_checks=n_checks,
        )
        return f"{verdict}\n\n{scope}"
    verdict = say(
        "### It did not pass the gate\n{n_failed} of {n_checks} checks are beyond their limits, "
        "so it would not be published:",
        n_failed=n_failed,
        n_checks=n_checks,
    )
    reasons = "".join(f"\n- {say.retell(reason)}" for reason in gate["reasons"])
    return f"{verdict}\n{reasons}\n\n{scope}"


def charts_html(evidence: Evidence, *, say: Speaker = ENGLISH) -> str:
    """Return the audit as pictures, each with its title and its text alternative."""
    audit = evidence.audit
    curve = drawn(evidence.picture("attack"), attack_sentence(audit, say=say), say=say)
    accuracy, attack = accuracy_chart(audit, say=say), attack_chart(audit, say=say)
    cost = cost_chart(audit, say=say)

    def label(kind: str) -> str:
        return say("Save as {kind}", kind=kind)

    parts = (
        (say("Does it still know its work?"), accuracy, "",
         audit_links("accuracy", accuracy, accuracy_csv(audit), label=label)),
        (say("Can an attack tell it from a retrained model?"), attack, "",
         audit_links("attack", attack, attack_csv(audit), label=label)),
        (say("The attack's curve"), curve, say(CURVE_NOTE),
         plot_links(evidence, "attack", label=label)),
        (say("What did it cost?"), cost, cost_sentence(audit, say=say),
         audit_links("cost", cost, cost_csv(audit), label=label)),
    )  # fmt: skip
    figures = [
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}"
        f"{f'<p>{escape(note)}</p>' if note else ''}{links}</figure>"
        for title, picture, note, links in parts
        if picture
    ]
    return f'<div class="audit">{"".join(figures)}</div>'


def numbers_table(evidence: Evidence, *, say: Speaker = ENGLISH) -> str:
    """Return the gate's checks and the accuracies as Markdown."""
    audit = evidence.audit
    checks = "".join(
        f"| {say.retell(check['name'])} | {_number(check['value'], say)} | "
        f"{_number(check['limit'], say)} | {say('yes') if check['passed'] else say('**no**')} |\n"
        for check in audit["gate"]["checks"]
    )
    limits = "".join(f"- {say.retell(limit)}\n" for limit in audit["limits"])
    head = say("| check | measured | limit | within |")
    return (
        f"{head}\n|---|---|---|---|\n{checks}\n{accuracy_sentence(audit, say=say)}\n\n"
        f"{attack_sentence(audit, say=say)}\n\n{say('**Not claimed:**')}\n{limits}"
    )


def publish_line(evidence: Evidence | None, missing: str, *, say: Speaker = ENGLISH) -> str:
    """Say why the model cannot be published from here, or what publishing would do.

    Args:
        evidence: What was found, None before.
        missing: What the app was started without; empty where it can publish.
        say: Says it in a language.
    """
    if missing:
        return say("**Publishing is off:** {reason}", reason=say.retell(missing))
    if evidence is not None and not evidence.has_passed:
        return say("**Publishing is off for this model:** it did not pass the gate.")
    return say("It goes into a private repository on the Hub, with its audit and a card.")


def _waiting_line(n_ahead: int, say: Speaker) -> str:
    if not n_ahead:
        return say("**Starting.**")
    return say.count(
        n_ahead,
        "**Waiting.** {n} run is before yours.",
        "**Waiting.** {n} runs are before yours.",
    )


def _running_line(view: RunView, say: Speaker) -> str:
    n_done = sum(step.state == "done" for step in view.steps)
    if n_done == len(view.steps):
        return say("**Nearly done:** reading what was found.")
    return say(
        "**Step {step} of {n_steps}:** {title}.",
        step=n_done + 1,
        n_steps=len(view.steps),
        title=say(STEPS[view.steps[n_done].name][0]),
    )


def _step(step: StepView, say: Speaker) -> str:
    title, what = (say(text) for text in STEPS[step.name])
    bar = ""
    if step.state == "running" and step.total:
        stage = say.retell(step.stage) or title
        words = say("{stage}, {done} of {total}", stage=stage, done=step.done, total=step.total)
        label = escape(words)
        bar = (
            f'<progress value="{step.done}" max="{step.total}" aria-label="{label}"></progress>'
            f'<span class="quiet">{label}</span>'
        )
    seconds = f" · {_duration(step.seconds)}" if step.state != "waiting" else ""
    return (
        f'<li class="{step.state}"><span class="mark" aria-hidden="true">{_MARKS[step.state]}'
        f'</span><span class="step"><b>{escape(title)}</b> <span class="quiet">'
        f'{escape(say(_SAID[step.state]))}{seconds}</span><br/><span class="quiet">{escape(what)}'
        f"</span>{bar}</span></li>"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _number(value: float | None, say: Speaker) -> str:
    return say("not known") if value is None else say.number(value, ".3g")
