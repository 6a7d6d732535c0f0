"use strict";

// Renders /openapi.json, and sends requests for the reader. Text of the document or of a
// program is inserted as text and never parsed as HTML.

const readOnly = document.documentElement.dataset.mode === "reference";
let spec; // the document, once it is loaded
let key = ""; // the reader's; kept nowhere else

// make returns an element. Attributes that are functions are listeners of the event of
// their name; those that are undefined or false are omitted.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== undefined && child !== ""));
  return element;
}

// resolve follows a reference within the document.
function resolve(node) {
  if (!node || !node.$ref) return node || {};
  const keys = node.$ref.split("/").slice(1).map(key => key.replaceAll("~1", "/").replaceAll("~0", "~"));
  return resolve(keys.reduce((found, key) => found[key], spec));
}

// ---- Schemas ----

function typeOf(schema) {
  const s = resolve(schema);
  const options = s.oneOf || s.anyOf;
  if (options) return options.map(typeOf).join(" or ");
  if (s.format === "binary") return "bytes";
  const types = [].concat(s.type || "any");
  return types.map(type => type === "array" ? "list of " + typeOf(s.items) : type).join(" or ");
}

function noteOf(schema) {
  const s = resolve(schema);
  return [
    schema.description || s.description,
    s.enum && "one of " + s.enum.join(", "),
    s.minimum !== undefined && "at least " + s.minimum,
    s.maximum !== undefined && "at most " + s.maximum,
    s.default !== undefined && "default " + JSON.stringify(s.default),
  ].filter(Boolean).join("; ");
}

// parts returns the schemas that contain the fields of a field, each with the prefix of
// the names of its fields.
function parts(schema, prefix) {
  const s = resolve(schema);
  const inner = [...(s.oneOf || []), ...(s.anyOf || []), ...(s.allOf || [])].flatMap(option => parts(option, prefix));
  if (s.properties) inner.push([s, prefix]);
  return s.items ? inner.concat(parts(s.items, prefix + "[]")) : inner;
}

// fields returns the fields of a schema: name, type and note. A recursive schema ends at
// a fixed depth.
function fields(schema, prefix = "", depth = 0) {
  if (depth > 5) return [];
  return parts(schema, prefix).flatMap(([part, start]) => Object.entries(part.properties).flatMap(([key, field]) => {
    const name = (start ? start + "." : "") + key;
    const optional = (part.required || []).includes(key) ? "" : " (optional)";
    return [[name, typeOf(field) + optional, noteOf(field)], ...fields(field, name, depth + 1)];
  }));
}

function fieldTable(rows) {
  if (rows.length === 0) return undefined;
  const head = make("tr", {}, ...["Name", "Type", "Meaning"].map(title => make("th", { scope: "col" }, title)));
  const body = rows.map(([name, type, note]) => make("tr", {},
    make("td", {}, make("code", {}, name)), make("td", { class: "soft" }, type), make("td", {}, note)));
  return make("table", { class: "fields" }, make("thead", {}, head), make("tbody", {}, ...body));
}

// ---- Reference ----

function show(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function examplesOf(media) {
  if (media.example !== undefined) return [{ summary: "Example", value: media.example }];
  return Object.values(media.examples || {}).map(resolve);
}

function renderExample(example) {
  return make("figure", { class: "example" },
    make("figcaption", { class: "soft" }, example.summary || "Example"), make("pre", {}, make("code", {}, show(example.value))));
}

function renderMedia(kind, media) {
  const events = Object.entries(media["x-events"] || {}).flatMap(([name, schema]) => [
    make("p", {}, "Data of the event ", make("code", {}, name)), fieldTable(fields(schema))]);
  return [make("p", { class: "soft" }, kind), fieldTable(fields(media.schema)), ...events, ...examplesOf(media).map(renderExample)];
}

function renderContent(content) {
  return Object.entries(content || {}).flatMap(([kind, media]) => renderMedia(kind, media));
}

function renderParameters(parameters) {
  if (parameters.length === 0) return undefined;
  const rows = parameters.map(p => [p.name, typeOf(p.schema) + ", in the " + p.in, p.description || ""]);
  return make("section", {}, make("h4", {}, "Parameters"), fieldTable(rows));
}

function renderRequest(request) {
  if (!request) return undefined;
  const examples = make("details", { open: readOnly }, make("summary", {}, "Fields and examples"), ...renderContent(request.content));
  return make("section", {}, make("h4", {}, "Request"), request.description ? make("p", {}, request.description) : "", examples);
}

function renderAnswer(status, answer) {
  const headers = Object.entries(answer.headers || {}).map(([name, header]) => {
    const h = resolve(header);
    return [name, "header", h.description || resolve(h.schema).description || ""];
  });
  const good = status.startsWith("2");
  return make("details", { class: "answer", "data-status": status, open: readOnly || good },
    make("summary", {}, make("strong", { class: good ? "" : "bad" }, status), " ", answer.description || ""),
    fieldTable(headers), ...renderContent(answer.content));
}

function renderOperation({ method, path, operation }) {
  const id = operation.operationId;
  const parameters = (operation.parameters || []).map(resolve);
  const request = operation.requestBody && resolve(operation.requestBody);
  return make("article", { id, class: "operation", "aria-labelledby": id + "-title", "data-route": method + " " + path },
    make("h3", { id: id + "-title" }, make("a", { href: "#" + id },
      make("span", { class: "verb " + method.toLowerCase() }, method), " ", make("code", {}, path), " ", operation.summary || "")),
    make("p", { class: "text" }, operation.description || ""),
    renderParameters(parameters), renderRequest(request),
    readOnly ? undefined : renderTrial({ id, method, path, parameters, request }),
    make("h4", {}, "Answers"),
    ...Object.entries(operation.responses || {}).map(([status, answer]) => renderAnswer(status, resolve(answer))));
}

// ---- Trying it out ----

// renderTrial returns a form that sends a request and shows its answer.
function renderTrial(route) {
  const inputs = route.parameters.filter(p => p.in !== "cookie").map(parameterInput);
  const body = bodyInput(route.request);
  const send = make("button", { type: "submit" }, "Send");
  const stop = make("button", { type: "button", class: "plain", disabled: true }, "Stop");
  const answer = make("div", { class: "result", "aria-live": "polite" });
  const submit = event => {
    event.preventDefault();
    exchange({ route, inputs, body, send, stop, answer });
  };
  return make("form", { submit, "aria-label": "Try " + route.id },
    make("h4", {}, "Try it"), ...inputs.map(input => input.element), ...body.elements, send, stop, answer);
}

function parameterInput(parameter) {
  const field = make("input", { name: parameter.name, required: parameter.required, value: parameter.example, autocomplete: "off" });
  return { parameter, field, element: make("label", {}, parameter.name + " ", field) };
}

// bodyInput returns the elements for a request's body, and a function that reads
// it as options of fetch.
function bodyInput(request) {
  const [kind, media] = Object.entries((request && request.content) || {})[0] || [];
  if (!kind) return { elements: [], read: () => ({}) };
  if (kind.includes("json") || kind.startsWith("text/")) return textInput(kind, media);
  if (kind === "multipart/form-data") return formInput(media);
  const file = make("input", { type: "file", name: "body" });
  return { elements: [make("label", {}, "Body", file)], read: () => ({ body: file.files[0], headers: { "Content-Type": kind } }) };
}

function textInput(kind, media) {
  const examples = examplesOf(media);
  const text = make("textarea", { name: "body", spellcheck: "false", rows: "12" });
  text.value = examples.length > 0 ? show(examples[0].value) : "";
  const choose = make("select", { name: "example", change: () => { text.value = show(examples[choose.selectedIndex].value) } },
    ...examples.map(example => make("option", {}, example.summary || "Example")));
  const elements = [make("label", {}, "Body (" + kind + ")", text)];
  if (examples.length > 1) elements.unshift(make("label", {}, "Example", choose));
  return { elements, read: () => ({ body: text.value, headers: { "Content-Type": kind } }) };
}

function formInput(media) {
  const schema = resolve(media.schema);
  const inputs = Object.entries(schema.properties || {}).map(([name, field]) => {
    const binary = resolve(field).format === "binary";
    return make("input", { name, type: binary ? "file" : "text", required: (schema.required || []).includes(name) });
  });
  const read = () => {
    const form = new FormData();
    for (const input of inputs) form.append(input.name, input.type === "file" ? input.files[0] : input.value);
    return { body: form };
  };
  return { elements: inputs.map(input => make("label", {}, input.name, input)), read };
}

// renderCredentials returns the field for the key that requests need.
function renderCredentials() {
  const field = make("input", { type: "password", autocomplete: "off", input: () => { key = field.value.trim() } });
  return make("form", { id: "credentials", submit: event => event.preventDefault() }, make("label", {}, "Key or token ", field));
}

// target fills in a route's path and query.
function target(path, inputs) {
  const query = new URLSearchParams();
  for (const { parameter, field } of inputs) {
    if (parameter.in === "path") path = path.replace("{" + parameter.name + "}", () => field.value.split("/").map(encodeURIComponent).join("/"));
    if (parameter.in === "query" && field.value !== "") query.set(parameter.name, field.value);
  }
  return path + (query.size > 0 ? "?" + query : "");
}

// exchange sends the request of a form and shows the answer, until the answer ends or the
// reader stops it.
async function exchange({ route, inputs, body, send, stop, answer }) {
  const aborter = new AbortController();
  stop.onclick = () => aborter.abort();
  send.disabled = true;
  stop.disabled = false;
  answer.replaceChildren(make("p", { class: "soft" }, "Waiting for the answer …"));
  try {
    const options = body.read();
    const headers = new Headers(options.headers);
    for (const { parameter, field } of inputs) if (parameter.in === "header" && field.value !== "") headers.set(parameter.name, field.value);
    if (key !== "") headers.set("Authorization", "Bearer " + key);
    const began = performance.now();
    const response = await fetch(target(route.path, inputs), { ...options, headers, method: route.method, signal: aborter.signal });
    answer.replaceChildren(...renderHead(response, performance.now() - began));
    await showBody(response, answer);
  } catch (error) {
    const reason = aborter.signal.aborted ? "Stopped." : "The request failed: " + error.message;
    answer.append(make("p", { class: "bad", role: "alert" }, reason));
  }
  send.disabled = false;
  stop.disabled = true;
}

function renderHead(response, took) {
  const lines = [...response.headers].map(([name, value]) => name + ": " + value).join("\n");
  return [
    make("p", {}, make("strong", { class: response.ok ? "status" : "status bad" }, response.status + " " + response.statusText), " after " + Math.round(took) + " ms"),
    make("details", {}, make("summary", {}, "Headers"), make("pre", {}, lines)),
  ];
}

async function showBody(response, answer) {
  const kind = response.headers.get("Content-Type") || "";
  if (kind.startsWith("text/event-stream")) return showStream(response, answer);
  const content = await response.blob();
  if (content.size === 0) return answer.append(make("p", { class: "soft" }, "No content."));
  if (kind.includes("json")) return showJSON(await content.text(), answer);
  if (kind.startsWith("text/")) return answer.append(make("pre", {}, await content.text()));
  return answer.append(make("p", {}, downloadLink(response, content)));
}

function showJSON(text, answer) {
  try {
    const value = JSON.parse(text);
    answer.append(...renderFaults(value.detail), make("pre", { class: "body" }, show(value)));
  } catch {
    answer.append(make("pre", { class: "body" }, text));
  }
}

// renderFaults shows the detail of an error as sentences.
function renderFaults(detail) {
  if (typeof detail === "string") return [make("p", { class: "bad", role: "alert" }, detail)];
  if (!Array.isArray(detail)) return [];
  const faults = detail.map(fault => make("li", {}, [].concat(fault.loc || []).join(" → ") + ": " + fault.msg));
  return [make("ul", { class: "bad", role: "alert" }, ...faults)];
}

function downloadLink(response, content) {
  const name = filenameOf(response.headers.get("Content-Disposition") || "");
  return make("a", { href: URL.createObjectURL(content), download: name }, "Save " + name + " (" + content.size + " bytes)");
}

// filenameOf reads a Content-Disposition; the exact name comes first.
function filenameOf(disposition) {
  const exact = /filename\*=UTF-8''([^;]+)/i.exec(disposition);
  const plain = /filename="([^"]*)"/i.exec(disposition);
  return exact ? decodeURIComponent(exact[1]) : plain ? plain[1] : "download";
}

// ---- Streams ----

async function showStream(response, answer) {
  const output = make("pre", { class: "output" });
  answer.append(output);
  for await (const event of eventsOf(response.body)) {
    const data = parsed(event.data);
    if (event.name === "output") appendOutput(output, data.stream === "stderr" ? "stderr" : "stdout", data.data);
    else answer.append(make("p", {}, make("strong", { class: event.name === "error" ? "bad" : "" }, event.name)), make("pre", { class: "body" }, show(data)));
  }
}

// appendOutput joins consecutive output of one stream: a line may be split into several
// events.
function appendOutput(output, stream, text) {
  const last = output.lastElementChild;
  if (last && last.className === stream) last.append(text);
  else output.append(make("span", { class: stream }, text));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// eventsOf iterates over server-sent events as they arrive.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = eventOf(block);
      if (event.data !== "") yield event;
    }
  }
}

function eventOf(block) {
  const event = { name: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  return event;
}

// ---- The page ----

// groupsOf sorts the operations by their tags, in the order of the document's.
function groupsOf() {
  const groups = new Map((spec.tags || []).map(tag => [tag.name, { tag, routes: [] }]));
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const verb of ["post", "get", "put", "patch", "delete"].filter(verb => item[verb])) {
      const name = (item[verb].tags || ["Other"])[0];
      if (!groups.has(name)) groups.set(name, { tag: { name }, routes: [] });
      groups.get(name).routes.push({ method: verb.toUpperCase(), path, operation: item[verb] });
    }
  }
  return [...groups.values()].filter(group => group.routes.length > 0);
}

function renderGroup({ tag, routes }) {
  const id = "group-" + tag.name.toLowerCase();
  return make("section", { "aria-labelledby": id }, make("h2", { id }, tag.name), make("p", {}, tag.description || ""), ...routes.map(renderOperation));
}

function renderLinks({ tag, routes }) {
  const links = routes.map(({ method, operation }) => make("li", {}, make("a", { href: "#" + operation.operationId },
    make("span", { class: "verb " + method.toLowerCase() }, method), " ", operation.summary || operation.operationId)));
  return make("div", {}, make("p", {}, tag.name), make("ul", {}, ...links));
}

function render() {
  const groups = groupsOf();
  document.title = spec.info.title + ": the HTTP API";
  document.querySelector("h1").textContent = document.title;
  const about = document.getElementById("about");
  about.className = "text";
  about.textContent = (spec.info.description || "") + "\n\nVersion " + spec.info.version + ". ";
  about.append(make("a", { href: "/openapi.json" }, "openapi.json"), " · ", readOnly
    ? make("a", { href: "/docs" }, "Try it out") : make("a", { href: "/redoc" }, "Only read"));
  if (spec.security && !readOnly) about.after(renderCredentials());
  document.querySelector("nav").append(...groups.map(renderLinks));
  document.getElementById("operations").append(...groups.map(renderGroup));
}

// goToTarget scrolls to the target of the address, which did not exist before.
function goToTarget() {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found) found.scrollIntoView();
}

async function main() {
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error("the server returned " + response.status);
    spec = await response.json();
    render();
    goToTarget();
  } catch (error) {
    document.getElementById("about").textContent = "The description could not be loaded: " + error.message;
  }
}

main();
