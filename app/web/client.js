// The only module that calls the API: a function for each operation. A test compares each with the OpenAPI description.

/** What an error answer said (RFC 9457). `status` is 0 where there was no answer. */
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", detail, errors = [], reasons = [] }, retryAfter = null) {
    super([detail, ...errors.map((fault) => `${fault.location.join(".")}: ${fault.message}`)].join(" "));
    Object.assign(this, { status, code, reasons, retryAfter });
  }
}

let key = null; // in memory only
let unauthorized = () => {};

/** Send this API key with every request. */
export const useKey = (value) => (key = value);
/** Call `listener` whenever the service refuses the key. */
export const onUnauthorized = (listener) => (unauthorized = listener);

// The newest requests first, for the room that shows them.
export const sent = [];
const SENT = 40;
const listeners = new Set();
/** Call `listener` after each answer; returns a function that ends this. */
export function onSent(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * One request. path: with `{names}` from `names`. query, body: fields, of which those undefined or null are left out.
 * image: a Blob, the body instead of JSON. quiet: leave the request out of `sent`. priority: among the requests that wait for a
 * connection.
 * Returns the parsed JSON, a picture as a Blob, or text. Throws Problem, and AbortError when `signal` aborts.
 */
async function send(method, path, { names = {}, query = {}, body, image, signal, quiet = false, priority } = {}) {
  const given = (fields) => Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(names[name]));
  const parameters = new URLSearchParams(given(query)).toString();
  const url = new URL(`.${filled}${parameters && "?"}${parameters}`, document.baseURI);
  const content = image ?? (body && JSON.stringify(Object.fromEntries(given(body))));
  const headers = {};
  if (content) headers["Content-Type"] = image ? image.type : "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const entry = { method, url, path, headers, content, started: performance.now() };
  let answer, text, picture;
  try {
    answer = await fetch(url, { method, headers, body: content, signal, priority, cache: "no-store" });
    if (answer.headers.get("Content-Type")?.startsWith("image/")) picture = await answer.blob();
    else text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: "The service cannot be reached." });
  }
  if (!quiet) {
    Object.assign(entry, {
      id: answer.headers.get("X-Request-Id"),
      status: answer.status,
      milliseconds: performance.now() - entry.started,
      bytes: picture?.size ?? text.length,
      download: picture && `${names.picture}.png`,
    });
    sent.unshift(entry);
    sent.length = Math.min(sent.length, SENT);
    listeners.forEach((listener) => listener());
  }
  if (picture) return picture;
  if (answer.ok) return answer.headers.get("Content-Type").startsWith("application/json") ? JSON.parse(text) : text;
  if (answer.status === 401) unauthorized();
  let problem;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = { status: answer.status, detail: `The service answered ${answer.status}.` };
  }
  throw new Problem(problem, answer.headers.get("Retry-After"));
}

export const openapi = () => send("GET", "/openapi.json", { quiet: true });
export const readyz = () => send("GET", "/readyz", { quiet: true });
export const metrics = () => send("GET", "/metrics", { quiet: true });
export const listModels = () => send("GET", "/models");
export const describeModel = (name) => send("GET", "/models/{name}", { names: { name } });

export const modelHistory = (name) => send("GET", "/models/{name}/history", { names: { name } });
export const modelPicture = (name, picture) => send("GET", "/models/{name}/pictures/{picture}", { names: { name, picture } });

export const generate = ({ model, n, seed, first, label, prior, temperature, truncation, latents, return_latents }, signal) =>
  send("POST", "/generate", {
    body: { model, n, seed, first, label, prior, temperature, truncation, latents, return_latents },
    signal,
  });

export const interpolateBetween = ({ model, from_latent, to_latent, label, path, steps }, signal) =>
  send("POST", "/interpolate", { body: { model, from_latent, to_latent, label, path, steps }, signal });

export const normalize = (image, { model, normalize }, signal) =>
  send("POST", "/normalize", { image, query: { model, normalize }, signal });

export const reconstruct = (image, { model, label, normalize }, signal) =>
  send("POST", "/reconstruct", { image, query: { model, label, normalize }, signal });

export const classify = (image, { model, normalize }, signal) =>
  send("POST", "/classify", { image, query: { model, normalize }, signal });

export const score = (image, { model, label, normalize }, signal) =>
  send("POST", "/score", { image, query: { model, label, normalize }, signal, priority: "low" });
