// Follows the event stream in a browser (or Node 18 and newer) with a token, which fetch can send and EventSource cannot:
//
//   for await (const event of follow("https://coordinator.example", { token, project: "shop", topics: ["signal.*"] })) …
//
// Each event arrives once and in order, across lost connections and restarts of the daemon. An event of the type "reset" means
// that history is gone: take a new snapshot. If the daemon rejects the request (a revoked token, a wrong topic), follow throws.
const SILENCE_MS = 45_000; // three heartbeats

export async function* follow(url, { token, project, topics = [], after = "now" }) {
  for (;;) {
    const given = new AbortController();
    let timer;
    try {
      const query = new URLSearchParams([["after", after], ...topics.map((topic) => ["topic", topic])]);
      if (project) query.append("project", project);
      timer = setTimeout(() => given.abort(), SILENCE_MS);
      const answer = await fetch(`${url}/v1/events/stream?${query}`, {
        headers: { Authorization: `Bearer ${token}` },
        signal: given.signal,
      });
      if (answer.status >= 400 && answer.status < 500) throw Object.assign(new Error(await answer.text()), { refused: true });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ; ) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(timer);
        timer = setTimeout(() => given.abort(), SILENCE_MS);
        const frames = (text + value).split("\n\n");
        text = frames.pop();
        for (const frame of frames) {
          const field = (name) => frame.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
          after = field("id") ?? after;
          if (!["ready", "bye", undefined].includes(field("event"))) yield JSON.parse(field("data"));
        }
      }
    } catch (error) {
      if (error.refused) throw error;
    } finally {
      clearTimeout(timer);
      given.abort();
    }
    await new Promise((over) => setTimeout(over, 500 + 500 * Math.random()));
  }
}
