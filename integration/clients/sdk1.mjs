// A client of the TypeScript SDK, version 1: see steps.mjs.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

import { open, walk } from "./steps.mjs";

const client = new Client({ name: "sdk1", version: "1" });
const connection = await open(client, { StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport });
await walk({
  list: () => client.listTools(),
  call: (params, options) => client.callTool(params, undefined, options),
  read: (params) => client.readResource(params),
});
await connection.terminateSession?.();
await client.close();
