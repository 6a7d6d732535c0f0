// A client of the TypeScript SDK, version 2: see steps.mjs. ERA is what it
// negotiates: legacy, with a handshake, or auto.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { open, walk } from "./steps.mjs";

const client = new Client({ name: "sdk2", version: "1" }, { versionNegotiation: { mode: process.env.ERA } });
const connection = await open(client, { StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport });
await walk({
  list: () => client.listTools(),
  call: (params, options) => client.callTool(params, options),
  read: (params) => client.readResource(params),
});
await connection.terminateSession?.();
await client.close();
