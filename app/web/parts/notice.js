// What stands where a result would be: an error, waiting, or nothing yet.
import { html } from "./html.js";

/** An error, where it happened, in the words of the service. */
export function ProblemNotice({ problem, retry }) {
  if (!problem) return null;
  return html`<div class="notice problem" role="alert">
    <p>${problem.message}</p>
    ${retry && html`<button type="button" class="quiet" onClick=${retry}>Try again</button>`}
  </div>`;
}

export function Hint({ children }) {
  return html`<p class="hint">${children}</p>`;
}

/** For screen readers: text that changes is spoken once the person pauses. */
export function Spoken({ children }) {
  return html`<p class="spoken" role="status">${children}</p>`;
}
