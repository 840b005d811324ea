// SPDX-License-Identifier: Apache-2.0
// What HCL itself, compiled to WebAssembly by two npm packages, says of texts: beside each NAME.hcl of the folder it writes
// NAME.verdict (accept or reject, and why) and, where it accepts, NAME.formatted.
//
//     node judge.js FOLDER      (with NODE_PATH at the folder that has @cdktf/hcl-tools and @cdktf/hcl2json)
const fs = require("fs");
const path = require("path");
const { format } = require("@cdktf/hcl-tools");
const { parse } = require("@cdktf/hcl2json");

async function judge(folder, name) {
  const base = path.join(folder, name.slice(0, -".hcl".length));
  const text = fs.readFileSync(path.join(folder, name), "utf8");
  let verdict = "accept";
  try {
    await parse(name, text);
  } catch (error) {
    // What is told while constants are worked out is no matter of syntax.
    if (String(error).includes("parse config")) verdict = "reject " + String(error).split("\n")[0];
  }
  fs.writeFileSync(base + ".verdict", verdict + "\n");
  if (verdict === "accept") fs.writeFileSync(base + ".formatted", await format(text));
}

(async () => {
  const folder = process.argv[2];
  for (const name of fs.readdirSync(folder).sort()) if (name.endsWith(".hcl")) await judge(folder, name);
  process.exit(0);
})();
