// Markup in modules: html`<p class="x">${text}</p>`.
import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);
