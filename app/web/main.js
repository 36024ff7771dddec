// Starts the studio: waits for the service, asks for a key if there is one, finds the rooms, and shows one of them.
import { render } from "preact";
import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";
import { listModels, onUnauthorized, openapi, readyz, useKey } from "./client.js";
import { html } from "./parts/html.js";
import { ProblemNotice, Spoken } from "./parts/notice.js";
import { link, settle, useLocation } from "./state.js";

const RETRY_MS = 1000;
const names = document.querySelector('meta[name="rooms"]').content.split(" ");
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The state of the start: `{waiting}`, `{locked}`, `{problem}` or `{rooms, models, offers}`. */
function useService() {
  const [state, set] = useState({ waiting: [] });
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    let current = true;
    onUnauthorized(() => set((old) => ({ ...old, locked: "The service refused this key." })));
    const start = async () => {
      try {
        const [description, loaded] = await Promise.all([openapi(), Promise.all(names.map((name) => import(`./rooms/${name}.js`)))]);
        for (;;) {
          try {
            await readyz();
            break;
          } catch (problem) {
            if (problem.status !== 503) throw problem;
            if (!current) return;
            set({ waiting: problem.reasons.length ? problem.reasons : [problem.message] });
            await wait(RETRY_MS);
          }
        }
        const needsKey = Boolean(description.components.securitySchemes);
        if (needsKey && attempt === 0) return set({ locked: "" });
        const { models } = await listModels();
        const ids = new Set(Object.values(description.paths).flatMap(Object.values).map((each) => each.operationId));
        const rooms = loaded
          .map(({ room }) => room)
          .filter((room) => room.operations.every((id) => ids.has(id)) && room.shown(models))
          .sort((a, b) => a.order - b.order);
        if (current) set({ rooms, models, offers: (id) => ids.has(id) });
      } catch (problem) {
        if (!current) return;
        if (problem.status === 401) set({ locked: "The service refused this key." });
        else set({ problem });
      }
    };
    start();
    return () => (current = false);
  }, [attempt]);
  return [state, () => setAttempt((count) => count + 1)];
}

function Studio() {
  const [service, restart] = useService();
  const { room: id, params } = useLocation();
  const room = service.rooms?.find((each) => each.id === id) ?? service.rooms?.[0];
  const main = useRef(null);
  const visited = useRef(null);
  useEffect(() => {
    if (!room) return;
    settle(id, room.id);
    document.title = `${room.title} · digits studio`;
    if (visited.current && visited.current !== room.id) {
      main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    visited.current = room.id;
    // On a phone not all tabs fit.
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [id, room?.id]);

  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>Skip to the room</a>
    <header class="top">
      <p class="brand">digits <span>studio</span></p>
      <nav aria-label="Rooms">
        ${service.rooms?.map((each) => html`<a key=${each.id} href=${link(each.id)} aria-current=${each === room ? "page" : undefined}>${each.title}</a>`)}
      </nav>
      <a class="aside" href="docs">API</a>
    </header>
    <main id="main" ref=${main} tabindex="-1">
      ${service.locked !== undefined && html`<${KeyDialog} said=${service.locked} onKey=${(key) => (useKey(key), restart())} />`}
      ${service.waiting && html`<div class="notice"><h1>Getting ready</h1>
        <p>The page opens by itself as soon as the service is ready.</p>
        ${service.waiting.map((reason) => html`<${Spoken}>${reason}<//><p class="hint" aria-hidden="true">${reason}</p>`)}</div>`}
      <${ProblemNotice} problem=${service.problem} retry=${restart} />
      ${service.rooms && !room && html`<div class="notice"><h1>No room to show</h1>
        <p>None of the loaded models can do what the rooms of this page show. The <a href="docs">API</a> lists what they can.</p></div>`}
      ${room && html`<h1>${room.title}</h1><p class="lead">${room.about}</p>
        <${Bounded} key=${room.id}><${room.Room} ...${{ ...service, params }} /><//>`}
    </main>`;
}

/** An error of a room stays in the room. */
function Bounded({ children }) {
  const [error, reset] = useErrorBoundary((thrown) => console.error(thrown));
  if (!error) return children;
  return html`<${ProblemNotice} problem=${{ message: "This room has failed. Another state or room may still work." }} retry=${reset} />`;
}

function KeyDialog({ said, onKey }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const submit = (event) => {
    event.preventDefault();
    onKey(event.target.elements.key.value.trim());
  };
  return html`<dialog ref=${dialog} aria-labelledby="key-title" onClose=${() => dialog.current?.showModal()}>
    <form class="key" onSubmit=${submit}>
      <h2 id="key-title">This service needs a key</h2>
      <p>The page keeps it in memory until it is closed or loaded again, and sends it to this service only.</p>
      <div class="field">
        <label for="key">API key</label>
        <input id="key" name="key" type="password" autocomplete="off" required autofocus />
      </div>
      ${said && html`<p class="notice problem" role="alert">${said}</p>`}
      <button type="submit">Open the studio</button>
    </form>
  </dialog>`;
}

render(html`<${Studio} />`, document.getElementById("studio"));
