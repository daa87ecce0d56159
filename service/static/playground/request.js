// "Copy as curl" and "Copy as Python (httpx)" of what a panel just asked.

import { typeOf } from "./api.js";
import { byId } from "./dom.js";

const address = (path) => new URL(path, document.baseURI).href;
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The requests as curl commands. */
export function curl(requests) {
  return requests.map((request) => {
    const parts = ["curl --silent --show-error", quoted(address(request.path))];
    if (request.json !== undefined) {
      parts.push("--header 'Content-Type: application/json'", `--data ${quoted(JSON.stringify(request.json))}`);
    } else if (request.file) {
      parts.push(`--header ${quoted(`Content-Type: ${typeOf(request.file)}`)}`);
      parts.push(`--data-binary ${quoted(`@${request.name}`)}`);
    }
    return parts.join(" \\\n  ");
  }).join("\n\n");
}

/** A JSON value as Python writes it. */
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each)}`).join(", ")}}`;
  return { true: "True", false: "False", null: "None" }[value] ?? JSON.stringify(value);
}

/** The requests as a Python program. */
export function python(requests) {
  const files = requests.some((request) => request.file);
  const lines = [...(files ? ["from pathlib import Path", ""] : []), "import httpx", ""];
  for (const request of requests) {
    const url = JSON.stringify(address(request.path));
    if (request.json !== undefined) {
      lines.push("response = httpx.post(", `    ${url},`, `    json=${literal(request.json)},`, ")");
    } else if (request.file) {
      lines.push("response = httpx.post(", `    ${url},`);
      lines.push(`    content=Path(${JSON.stringify(request.name)}).read_bytes(),`);
      lines.push(`    headers={"Content-Type": ${JSON.stringify(typeOf(request.file))}},`, ")");
    } else {
      lines.push(`response = httpx.get(${url})`);
    }
    lines.push("response.raise_for_status()", "print(response.json())", "");
  }
  return lines.join("\n");
}

/** The same for UM-Bridge's own client, where a panel says what that is to ask. */
export function umbridge(requests) {
  const { name, vectors, calls } = requests[0].umbridge;
  const lines = ["import umbridge", "", `model = umbridge.HTTPModel(${JSON.stringify(address("umbridge"))}, ${JSON.stringify(name)})`];
  return [...lines, `at = ${JSON.stringify(vectors)}`, "print(model(at))", ...calls, ""].join("\n");
}

const LANGUAGES = { curl, python, umbridge };

/** Where a panel notes what it asked last; its buttons then copy that. */
export class Record {
  constructor(panel) {
    this.place = byId(`${panel}-request`);
    this.requests = [];
    this.place.querySelectorAll("[data-language]").forEach((button) => {
      button.disabled = true;
      button.addEventListener("click", () => this.copy(button.dataset.language));
    });
    this.details = this.place.querySelector("details");
    this.details.addEventListener("toggle", () => this.show());
  }

  set(requests) {
    this.requests = requests;
    this.place.querySelectorAll("[data-language]").forEach((button) => (button.disabled = false));
    this.show();
  }

  show(language = "curl") {
    if (this.details.open) this.place.querySelector("pre").textContent = LANGUAGES[language](this.requests);
  }

  async copy(language) {
    const status = this.place.querySelector("[role=status]");
    try {
      await navigator.clipboard.writeText(LANGUAGES[language](this.requests));
      status.textContent = "Copied.";
    } catch {
      // Browsers give no clipboard to pages of another machine without HTTPS.
      this.details.open = true;
      this.show(language);
      getSelection().selectAllChildren(this.place.querySelector("pre"));
      status.textContent = "Selected below: press Ctrl+C.";
    }
  }
}
