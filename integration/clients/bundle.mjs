// Prints the command, the arguments and the environment with which a host of
// MCP bundles starts an unpacked one, where the user has left all settings as
// they are.
import { getMcpConfigForManifest } from "@anthropic-ai/mcpb";
import { readFileSync } from "node:fs";

const folder = process.argv[2];
const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf8"));
const config = await getMcpConfigForManifest({
  manifest,
  extensionPath: folder,
  systemDirs: {},
  userConfig: {},
  pathSeparator: "/",
});
console.log(JSON.stringify(config));
