"""How the page looks, and the two small scripts it runs in the browser; only text."""

from __future__ import annotations

CSS = """
.gradio-container, .gradio-container main, .gradio-container .main {
  width: 100%; max-width: 1080px !important; margin-inline: auto !important;
}
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
.quiet { opacity: .85; }
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
@media (max-width: 480px) {
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
  link.download = "privacy-dial.png";
  document.body.append(link);
  link.click();
  link.remove();
}"""
"""Saves the file that was just made; the browser is told its name."""
ANNOUNCE = """() => {
  for (const id of ["status", "privacy", "outcome", "set", "erased"]) {
    const region = document.getElementById(id);
    region?.setAttribute("role", "status");
    region?.setAttribute("aria-live", "polite");
  }
}"""
"""Lets screen readers speak the lines that change."""
SCROLL_TO_HEADING = "() => document.getElementById('heading')?.scrollIntoView()"
SCROLL_TO_DIAL = "() => document.getElementById('status')?.scrollIntoView()"
"""Bring the new part into view; on a phone the button that was pressed is far below it."""
HISTORY_KEY = "privacy-dial-history"
"""Where the browser keeps its record, sealed here; so the key Gradio asks for is no secret."""
CLEAR_RECORD = f"""(history) => {{
  if (!history) localStorage.removeItem("{HISTORY_KEY}");
}}"""
"""Gradio never writes an empty value over what a browser keeps."""
