// Performs the server audits of graphql-http, which check what the GraphQL-over-HTTP specification says, and prints what
// each found as JSON.
//
// usage: node audit.mjs URL
import { serverAudits } from "graphql-http";

const [url] = process.argv.slice(2);
const results = [];
for (const audit of serverAudits({ url })) {
  const result = await audit.fn();
  results.push({ id: result.id, name: result.name, status: result.status, reason: result.reason ?? "" });
}
console.log(JSON.stringify(results));
