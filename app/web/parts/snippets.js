// A request that the page has sent, as code. The key is never shown: it comes from the environment.

const fileName = (blob) => (blob.type === "image/jpeg" ? "drawing.jpg" : "drawing.png");
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl({ method, url, headers, content, download }) {
  const lines = [`curl -s ${shellQuoted(String(url))}`];
  if (method === "POST" && !content) lines.push("-X POST");
  if (headers.Authorization) lines.push('-H "Authorization: Bearer $DIGITS_API_KEY"');
  if (headers["Content-Type"]) lines.push(`-H 'Content-Type: ${headers["Content-Type"]}'`);
  if (content instanceof Blob) lines.push(`--data-binary @${fileName(content)}`);
  else if (content) lines.push(`-d ${shellQuoted(content)}`);
  if (download) lines.push(`-o ${download}`);
  return lines.join(" \\\n  ");
}

export function asPython({ method, url, headers, content, download }) {
  const lines = [...(download ? [] : ["import json"]), ...(headers.Authorization ? ["import os"] : []), "from urllib.request import Request, urlopen", ""];
  const given = [];
  if (content instanceof Blob) lines.push(`with open("${fileName(content)}", "rb") as file:`, "    content = file.read()");
  else if (content) lines.push(`content = json.dumps(${asLiteral(JSON.parse(content))}).encode()`);
  if (headers["Content-Type"]) given.push(`"Content-Type": "${headers["Content-Type"]}"`);
  if (headers.Authorization) given.push('"Authorization": f"Bearer {os.environ[\'DIGITS_API_KEY\']}"');
  lines.push(`request = Request(`, `    ${JSON.stringify(String(url))},`, `    method="${method}",`);
  if (content) lines.push("    data=content,");
  if (given.length) lines.push(`    headers={${given.join(", ")}},`);
  lines.push(")");
  if (download) lines.push(`with urlopen(request) as answer, open("${download}", "wb") as file:`, "    file.write(answer.read())");
  else lines.push("with urlopen(request) as answer:", "    print(json.load(answer))");
  return lines.join("\n");
}

/** A JSON value as Python writes it. */
function asLiteral(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(asLiteral).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${asLiteral(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}
