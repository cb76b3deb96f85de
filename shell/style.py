"""How the page looks, and the small scripts it runs in the browser; only text."""

from __future__ import annotations

CONTRAST = {
    "block_label_text_color": "*primary_800",
    "block_title_text_color": "*primary_800",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "link_text_color": "*primary_700",
    "link_text_color_hover": "*primary_800",
    "link_text_color_visited": "*primary_700",
    "link_text_color_active": "*primary_800",
    "link_text_color_dark": "*primary_300",
    "link_text_color_hover_dark": "*primary_200",
    "link_text_color_visited_dark": "*primary_300",
    "link_text_color_active_dark": "*primary_200",
    "checkbox_label_background_fill_selected": "*primary_600",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
}
"""The theme's colours where its own are too pale to read: at least 4.5 to 1 against the ground."""
CSS = """
.gradio-container, .gradio-container main, .gradio-container .main {
  width: 100%; max-width: 1080px !important; margin-inline: auto !important;
}
footer .divider { display: none; }
button.lg { align-self: stretch; }
button.lg, button.md, .label-wrap, .source-selection button { min-height: 44px; }
.label-wrap { align-items: center; text-align: left; }
.source-selection { min-height: 48px; }
.source-selection button { min-width: 44px; justify-content: center; }
.source-selection button svg { width: 20px; height: 20px; margin: auto; }
.gradio-container fieldset label { min-height: 44px; }
.picture label { position: static !important; width: fit-content; margin: 6px; }
.picture label span:has(svg), .picture .icon-button-wrapper { display: none; }
:focus-visible { outline: 3px solid #4f46e5 !important; outline-offset: 2px; }
.dark :focus-visible { outline-color: #a5b4fc !important; }
[data-testid="status-tracker"]:has(.error) { display: none; }
#examples, #examples .grid-wrap { min-height: 0; height: auto; max-height: none; }
#examples .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)) !important;
  grid-template-rows: none !important; height: auto;
}
#examples .caption-label { display: none; }
[role="tab"][aria-selected="true"] { color: #4338ca !important; }
.dark [role="tab"][aria-selected="true"] { color: #a5b4fc !important; }
[role="tab"], #compare label { min-height: 44px; }
@media (max-width: 480px) { .tab-container button { padding-inline: 8px !important; } }
.quiet { opacity: .95; }
.dial-chart { display: block; width: 100%; max-width: 460px; margin: 4px auto; overflow: visible; }
.dial-chart text { fill: #374151; font: 12px system-ui, sans-serif; }
.dial-chart .faint { fill: #4b5563; font-size: 11px; }
.dial-chart .chosen { fill: #3730a3; font-weight: 600; font-size: 13px; }
.dial-chart .below { fill: #6b7280; opacity: .12; }
.dial-chart .floor { stroke: #6b7280; stroke-width: 1.5; stroke-dasharray: 3 3; }
.dial-chart .belief { fill: #818cf8; opacity: .45; }
.dial-chart .band { stroke: #4f46e5; stroke-width: 5; stroke-linecap: round; }
.dial-chart .mean { fill: #fff; stroke: #4f46e5; stroke-width: 2.5; }
.dial-chart line.decision { stroke: #3730a3; stroke-width: 2; }
.dial-chart path.decision { fill: #3730a3; }
.dark .dial-chart text { fill: #d1d5db; }
.dark .dial-chart .faint { fill: #d1d5db; }
.dark .dial-chart .chosen { fill: #e0e7ff; }
.dark .dial-chart .below { fill: #d1d5db; }
.dark .dial-chart .floor { stroke: #d1d5db; }
.dark .dial-chart .band, .dark .dial-chart .mean { stroke: #a5b4fc; }
.dark .dial-chart .mean { fill: #1f2937; }
.dark .dial-chart line.decision { stroke: #e0e7ff; }
.dark .dial-chart path.decision { fill: #e0e7ff; }
.loop-steps { list-style: none; padding: 0; margin: 4px 0; }
.loop-steps li { display: flex; gap: 10px; padding: 6px 0; margin: 0; }
.loop-steps .mark { flex: 0 0 22px; text-align: center; font-weight: 700; }
.loop-steps .step { flex: 1; min-width: 0; }
.loop-steps .running .mark { color: #4f46e5; }
.loop-steps .done .mark { color: #15803d; }
.loop-steps .failed .mark { color: #b91c1c; }
.dark .loop-steps .running .mark { color: #a5b4fc; }
.dark .loop-steps .done .mark { color: #86efac; }
.dark .loop-steps .failed .mark { color: #fca5a5; }
.loop-steps progress { appearance: none; display: block; width: 100%; max-width: 460px;
  height: 10px; margin: 6px 0 2px; border: 0; border-radius: 5px; background: #d1d5db;
  overflow: hidden; }
.loop-steps progress::-webkit-progress-bar { background: #d1d5db; }
.loop-steps progress::-webkit-progress-value { background: #4f46e5; }
.loop-steps progress::-moz-progress-bar { background: #4f46e5; }
.audit { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr));
  gap: 20px; align-items: start; }
.audit figure { margin: 0; min-width: 0; }
.audit figcaption { font-weight: 600; margin-bottom: 4px; }
.audit figure p { margin: 4px 0 0; opacity: .85; }
.audit .drawing { overflow-x: auto; }
#likeness meter { width: 100%; max-width: 480px; height: 20px; }
#observed table { width: 100%; max-width: 720px; border-collapse: collapse; margin: 8px 0; }
#observed th, #observed td { padding: 6px; text-align: left; vertical-align: top; border: 0;
  border-bottom: 1px solid #9ca3af; }
#observed small { display: block; font-weight: 400; }
.audit-chart { display: block; width: 100%; max-width: 460px; }
#numbers td, #numbers th, #about td, #about th, #crowd-numbers td, #crowd-numbers th {
  padding: 4px 6px; overflow-wrap: normal; word-break: normal; }
.audit .plot { display: block; width: 100%; min-width: 440px; max-width: 460px; margin: 0; }
.dark .audit .plot { filter: invert(.9) hue-rotate(180deg); }
.audit-chart text { fill: #374151; font: 12px system-ui, sans-serif; }
.audit-chart .rule { stroke: #9ca3af; stroke-width: .75; }
.audit-chart .limit { stroke: #374151; stroke-width: 1.5; stroke-dasharray: 3 3; }
.audit-chart .original { fill: #b2182b; }
.audit-chart .unlearned { fill: #2166ac; }
.audit-chart .reference { fill: #6b7280; }
.audit-chart .interval { stroke: #111827; stroke-width: 1.5; fill: none; }
.audit-chart .interval.original { stroke: #b2182b; stroke-width: 3; }
.audit-chart .interval.unlearned { stroke: #2166ac; stroke-width: 3; }
.audit-chart .interval.reference { stroke: #6b7280; stroke-width: 3; }
.audit-chart .bar, .audit-chart .right { fill: #2166ac; }
.audit-chart .bar { opacity: .75; }
.audit-chart .revealing { fill: #b2182b; }
.audit-chart .changed { fill: #6b7280; }
.audit-chart .line-right, .audit-chart .line-revealing, .audit-chart .line-changed {
  fill: none; stroke-width: 2; }
.audit-chart .line-right { stroke: #2166ac; }
.audit-chart .line-revealing { stroke: #b2182b; stroke-dasharray: 2 3; }
.audit-chart .line-changed { stroke: #6b7280; stroke-dasharray: 6 4; }
.ladder { display: grid; grid-template-columns: repeat(auto-fit, minmax(80px, 1fr)); gap: 8px;
  max-width: 720px; list-style: none; padding: 0; margin: 4px 0; }
.ladder li { margin: 0; text-align: center; }
.ladder img { display: block; width: 100%; margin: 0; border-radius: 8px; }
.save a { display: inline-block; min-height: 44px; line-height: 44px; padding-right: 16px; }
.dark .audit-chart .bar, .dark .audit-chart .right { fill: #60a5fa; }
.dark .audit-chart .revealing { fill: #f87171; }
.dark .audit-chart .changed { fill: #9ca3af; }
.dark .audit-chart .line-right { stroke: #60a5fa; }
.dark .audit-chart .line-revealing { stroke: #f87171; }
.dark .audit-chart .line-changed { stroke: #9ca3af; }
.dark .audit-chart text { fill: #d1d5db; }
.dark .audit-chart .limit { stroke: #d1d5db; }
.dark .audit-chart .original { fill: #f87171; }
.dark .audit-chart .unlearned { fill: #60a5fa; }
.dark .audit-chart .reference { fill: #9ca3af; }
.dark .audit-chart .interval { stroke: #f9fafb; }
.dark .audit-chart .interval.original { stroke: #f87171; }
.dark .audit-chart .interval.unlearned { stroke: #60a5fa; }
.dark .audit-chart .interval.reference { stroke: #9ca3af; }
@media (max-width: 480px) {
  #numbers table, #about table, #crowd-numbers table { font-size: 12px; }
  #observed table { font-size: 13px; }
  #observed th, #observed td { padding: 6px 4px; }
  #just-right .wrap, #why-not .wrap, #best .wrap { gap: 8px; }
  #just-right .wrap, #why-not .wrap { flex-direction: column; }
}
@media (prefers-reduced-motion: reduce) {
  * { animation: none !important; transition: none !important; }
}
"""
SAVE_FILE = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name || "privacy-dial.png";
  document.body.append(link);
  link.click();
  link.remove();
}"""
"""Saves the file that was just made; the browser is told its name."""
ANNOUNCE = """() => {
  for (const id of ["status", "privacy", "outcome", "set", "erased", "loop-said", "face-said"]) {
    const region = document.getElementById(id);
    region?.setAttribute("role", "status");
    region?.setAttribute("aria-live", "polite");
  }
}"""
"""Lets screen readers speak the lines that change."""
LANGUAGE = """() => {
  const german = navigator.language.toLowerCase().startsWith("de");
  document.documentElement.lang = german ? "de" : "en";
}"""
"""Says which language the page is in: Gradio names the browser's, even one it does not speak."""
ARROWS = """() => {
  document.addEventListener("keydown", (event) => {
    const step = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key];
    const group = event.target.type === "radio" && event.target.closest("fieldset");
    if (!step || !group) return;
    const all = [...group.querySelectorAll("input[type=radio]")];
    const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
    event.preventDefault();
    next.focus();
    next.click();
  });
}"""
"""Lets arrow keys choose among the answers to a question: Gradio gives each a group of its own."""
_GO = """() => {
  const part = document.getElementById("%s");
  part?.scrollIntoView();
  part?.setAttribute("tabindex", "-1");
  part?.focus({preventScroll: true});
}"""
_FOCUS = """() => {
  const part = document.getElementById("%s");
  part?.setAttribute("tabindex", "-1");
  part?.focus();
}"""
FOCUS_FACE = _FOCUS % "face-said"
"""Goes to what happens to a face, since the button that was pressed is gone."""
FOCUS_OBSERVED = _FOCUS % "observed"
"""Goes to the table that was asked for, which stands below the button."""
FORGET = "() => ''"
"""Empties what no longer fits the picture."""
SCROLL_TO_HEADING = _GO % "heading"
SCROLL_TO_DIAL = _GO % "status"
SCROLL_TO_LOOP = _GO % "loop-said"
"""Bring the new part into view and focus: on a phone the button that was pressed is far below it,
and where it is gone, keys and screen readers would start again from the top."""
HISTORY_KEY = "privacy-dial-history"
"""Where the browser keeps its record, sealed here; so the key Gradio asks for is no secret."""
CLEAR_RECORD = f"""(history) => {{
  if (!history) localStorage.removeItem("{HISTORY_KEY}");
}}"""
"""Gradio never writes an empty value over what a browser keeps."""
