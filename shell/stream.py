"""Keeps the answers to calls coming to the browser, whenever a call is made; knows no page."""

from __future__ import annotations

ONE_STREAM = """() => {
  const send = window.fetch.bind(window), unanswered = new Set(), early = new Set();
  let wake = () => {};
  async function join(...given) {
    const response = await send(...given);
    if (response.ok) {
      const call = (await response.clone().json()).event_id;
      if (!early.delete(call)) unanswered.add(call);
      wake();
    }
    return response;
  }
  async function* messages(response, request) {
    for (;; response = await send(request.clone())) {
      if (!response.ok) throw new Error(`The stream was refused: ${response.status}`);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "", isClosed = false;
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        const parts = (rest + piece.value).split("\\n\\n");
        rest = parts.pop();
        for (const part of parts) {
          const said = JSON.parse(part.slice(5));
          if (said.msg === "process_completed" && !unanswered.delete(said.event_id)) {
            early.add(said.event_id);  // Answered before `join` knew its name.
          }
          if (said.msg === "close_stream") isClosed = true;
          else yield part + "\\n\\n";
        }
      }
      if (!isClosed) return;
      if (!unanswered.size) await new Promise((resolve) => { wake = resolve; });
    }
  }
  async function listen(request) {
    const first = await send(request.clone());
    if (!first.ok) return first;
    const given = messages(first, request), encoder = new TextEncoder();
    const body = new ReadableStream({
      async pull(out) {
        const {value, done} = await given.next();
        if (done) out.close();
        else out.enqueue(encoder.encode(value));
      },
    });
    return new Response(body, {status: first.status, headers: first.headers});
  }
  window.fetch = (resource, options) => {
    const path = new URL(resource.url ?? resource, location.href).pathname;
    if (path.endsWith("/queue/join")) return join(resource, options);
    if (path.endsWith("/queue/data")) return listen(new Request(resource, options));
    return send(resource, options);
  };
}"""
"""Gives Gradio's client one stream of answers for as long as the page is open.

The server ends a stream when every call was answered, and says so first. A call that is made
while that word is on its way gets no answer: the client takes the old stream for open, and closes
it a moment later. So the client never hears that word; what it listens to goes on with the
server's next stream as soon as a call waits for an answer.
"""
