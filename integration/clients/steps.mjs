// What the clients of the TypeScript SDKs have in common: they walk through the
// steps that the tests give them, and print what came of each, as JSON.
//
//   node sdk1.mjs stdio|http|sse BINARY|URL STEPS

const [, , transport, target, steps] = process.argv;

// open connects a client over the transport that the test names.
export async function open(client, { StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport }) {
  const connections = {
    stdio: () => new StdioClientTransport({ command: target, args: ["stdio"], env: process.env }),
    http: () => new StreamableHTTPClientTransport(new URL(target + "/mcp")),
    sse: () => new SSEClientTransport(new URL(target + "/sse")),
  };
  const connection = connections[transport]();
  await client.connect(connection);
  return connection;
}

// walk needs of a client: list(), call(params, options), read(params).
export async function walk(client) {
  const outcomes = [];
  let links = [];
  for (const step of JSON.parse(steps)) {
    const began = Date.now();
    let outcome;
    if (step.list) {
      outcome = { tools: (await client.list()).tools.map((tool) => tool.name) };
    } else if (step.read) {
      outcome = { text: (await client.read({ uri: links[0] })).contents.map(text).join("") };
    } else {
      outcome = await call(client, step);
      links = outcome.links ?? [];
    }
    outcomes.push({ ...outcome, ms: Date.now() - began });
  }
  console.log(JSON.stringify(outcomes));
}

// call calls the tool, and calls that off when there has been enough progress.
async function call(client, step) {
  const progress = [];
  const controller = new AbortController();
  const onprogress = (p) => {
    progress.push({ progress: p.progress, message: p.message });
    if (progress.length === step.cancelAt) controller.abort("the test has seen enough");
  };
  try {
    const result = await client.call({ name: "execute_python", arguments: step.call }, { onprogress, signal: controller.signal });
    return {
      text: result.content.filter((part) => part.type === "text").map(text).join(""),
      isError: result.isError ?? false,
      links: result.content.filter((part) => part.type === "resource_link").map((part) => part.uri),
      progress,
    };
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    return { cancelled: true, progress };
  }
}

const text = (part) => part.text ?? Buffer.from(part.blob, "base64").toString();
