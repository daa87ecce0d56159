// Talks to the public API; every request it makes can be shown as a command.

/** An answer that is an error, with the service's own words (RFC 9457). */
export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail || `The service answered with status ${status}`);
    this.status = status;
    this.errors = document?.errors ?? [];
  }
}

/** GET a path. */
export const get = (path) => ({ method: "GET", path });

/** POST a JSON document. */
export const postJson = (path, json) => ({ method: "POST", path, json });

/** POST a file as it is. */
export const postFile = (path, file, name) => ({ method: "POST", path, file, name });

/** The content type that a file is sent as; the service looks at the bytes, not at this. */
export const typeOf = (file) => (file.type.startsWith("image/") ? file.type : "application/octet-stream");

/** Send a request; its answer as JSON and the milliseconds it took. Throws Problem or Error. */
export async function send(request) {
  const options = { method: request.method, headers: { accept: "application/json" } };
  if (request.json !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(request.json);
  } else if (request.file) {
    options.headers["content-type"] = typeOf(request.file);
    options.body = request.file;
  }
  const started = performance.now();
  let response;
  try {
    response = await fetch(request.path, options);
  } catch {
    throw new Error("The service did not answer. Is it running, and are you connected to it?");
  }
  const document = await response.json().catch(() => null);
  const milliseconds = performance.now() - started;
  if (!response.ok || document === null) throw new Problem(response.status, document);
  return { document, milliseconds };
}

/** ``work`` such that calls made while one runs are dropped, all but the latest. */
export function latest(work) {
  let running = false;
  let waiting = null;
  return async function call(...values) {
    if (running) {
      waiting = values;
      return;
    }
    running = true;
    try {
      await work(...values);
    } finally {
      running = false;
      if (waiting) {
        const next = waiting;
        waiting = null;
        call(...next);
      }
    }
  };
}
